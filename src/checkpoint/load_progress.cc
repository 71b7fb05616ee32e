#include "checkpoint/load_progress.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "base/log.h"
#include "base/memory.h"

namespace wideload::checkpoint {
namespace {

constexpr int64_t kDrawIntervalMs = 100;

}  // namespace

LoadProgress::LoadProgress(std::string what, uint64_t total_bytes)
    : what_(std::move(what)),
      total_bytes_(total_bytes),
      on_terminal_(StderrIsTerminal()),
      start_(Clock::now()) {
  if (!on_terminal_) LogInfo("{}: {}", what_, FormatBytes(total_bytes_));
}

LoadProgress::~LoadProgress() {
  if (on_terminal_ && !finished_ && last_draw_ms_ > 0) std::fputc('\n', stderr);
}

void LoadProgress::Add(uint64_t bytes) {
  const uint64_t done = done_bytes_.fetch_add(bytes, std::memory_order_relaxed) + bytes;
  if (!on_terminal_) return;
  const int64_t now_ms =
      std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - start_).count();
  int64_t last_ms = last_draw_ms_.load(std::memory_order_relaxed);
  // Whoever advances the time draws; the others go on.
  if (now_ms - last_ms >= kDrawIntervalMs &&
      last_draw_ms_.compare_exchange_strong(last_ms, now_ms, std::memory_order_relaxed))
    Draw(done);
}

void LoadProgress::Draw(uint64_t done_bytes) const {
  const uint64_t percent =
      total_bytes_ == 0 ? 100 : std::min<uint64_t>(100, 100 * done_bytes / total_bytes_);
  const std::string line = fmt::format("\r{}: {} of {} ({} %)\x1b[K", what_,
                                       FormatBytes(done_bytes), FormatBytes(total_bytes_), percent);
  std::fputs(line.c_str(), stderr);
  std::fflush(stderr);
}

void LoadProgress::Finish() {
  finished_ = true;
  if (on_terminal_ && last_draw_ms_ > 0) std::fputs("\r\x1b[K", stderr);
  const double seconds = std::chrono::duration<double>(Clock::now() - start_).count();
  LogInfo("{}: {} in {:.2f} s", what_, FormatBytes(done_bytes()), seconds);
}

}  // namespace wideload::checkpoint
