// How far the loading of weights is: a line on stderr that moves on a terminal, and one line at the
// end otherwise. Thread-safe.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>

namespace wideload::checkpoint {

class LoadProgress {
 public:
  // `what` opens every line: "loading weights". Prints at most one line per tenth of a second on a
  // terminal; elsewhere one line now and one from Finish.
  LoadProgress(std::string what, uint64_t total_bytes);
  // Ends an unfinished terminal line, so that an error message starts on its own.
  ~LoadProgress();
  LoadProgress(const LoadProgress&) = delete;
  LoadProgress& operator=(const LoadProgress&) = delete;

  // May be called by many threads.
  void Add(uint64_t bytes);
  uint64_t done_bytes() const { return done_bytes_.load(std::memory_order_relaxed); }
  // Prints the last line with bytes and duration; call once, when all is done.
  void Finish();

 private:
  using Clock = std::chrono::steady_clock;
  void Draw(uint64_t done_bytes) const;

  const std::string what_;
  const uint64_t total_bytes_;
  const bool on_terminal_;
  const Clock::time_point start_;
  std::atomic<uint64_t> done_bytes_{0};
  std::atomic<int64_t> last_draw_ms_{0};
  bool finished_ = false;
};

}  // namespace wideload::checkpoint
