#include "moe/slot_copier.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/thread_pool.h"

namespace wideload::moe {
namespace {

constexpr int kTurns = 2;
constexpr int64_t kAlignment = 64;
// Between two of them a copy looks whether it has to end, and others see that it gets on.
constexpr int64_t kPieceBytes = int64_t{256} << 10;

}  // namespace

BandwidthLimit::Time BandwidthLimit::Take(int64_t num_bytes, Time now) {
  if (bytes_per_second_ == 0) return now;
  const Time begin = std::max(now, next_);
  const double seconds = static_cast<double>(num_bytes) / static_cast<double>(bytes_per_second_);
  next_ =
      begin + std::chrono::duration_cast<Time::duration>(std::chrono::duration<double>(seconds));
  return begin;
}

int64_t SlotCopier::BlockBytes(int64_t expert_bytes) {
  return (expert_bytes + kAlignment - 1) / kAlignment * kAlignment;
}

SlotCopier::SlotCopier(const CopierOptions& options)
    : options_(options),
      weights_(static_cast<size_t>(options.num_blocks)),
      pending_(kTurns * options.num_layers),
      limit_(options.bytes_per_second) {
  options_.block_bytes = BlockBytes(options.block_bytes);
  memory_ = Buffer(options_.num_blocks * options_.block_bytes);
  try {
    for (int32_t i = 0; i < options.num_threads; ++i) {
      trace::Track* const track =
          options.trace != nullptr
              ? &options.trace->AddTrack(options.rank, fmt::format("copy thread {}", i))
              : nullptr;
      threads_.push_back(StartThread(fmt::format("copy{}/{}", options.rank, i),
                                     [this, track] { ThreadMain(track); }));
    }
  } catch (...) {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    changed_.notify_all();
    throw;
  }
}

SlotCopier::~SlotCopier() {
  const std::lock_guard lock(mutex_);
  stop_ = true;
  changed_.notify_all();
}

// A block is as large as the largest expert; this one's may be another shape.
void SlotCopier::Reshape(int32_t block, const compute::ExpertWeights& expert) {
  const auto num_bytes = static_cast<int64_t>(expert.bytes().size());
  WIDELOAD_CHECK(num_bytes > 0 && num_bytes <= options_.block_bytes,
                 "an expert of {} bytes for a block of {}", num_bytes, options_.block_bytes);
  const std::span<std::byte> bytes(memory_.data() + block * options_.block_bytes,
                                   static_cast<size_t>(num_bytes));
  weights_[static_cast<size_t>(block)] =
      compute::ExpertWeights::Over(expert.shape(), Buffer::Over(bytes));
}

void SlotCopier::CopyNow(int32_t block, const compute::ExpertWeights& expert) {
  Reshape(block, expert);
  std::ranges::copy(expert.bytes(), weights(block).bytes().begin());
}

void SlotCopier::Begin(int32_t block, const compute::ExpertWeights& expert, int turn,
                       size_t layer) {
  Reshape(block, expert);
  std::atomic<int32_t>& pending = pending_[static_cast<size_t>(turn) * options_.num_layers + layer];
  pending.fetch_add(1);
  {
    const std::lock_guard lock(mutex_);
    jobs_.push_back({.from = &expert, .block = block, .layer = layer, .pending = &pending});
  }
  changed_.notify_one();
}

void SlotCopier::WaitLayer(int turn, size_t layer) {
  WaitFor(
      done_, WaitLadder::Oversubscribed(), [&](uint32_t) { return IsDone(turn, layer); },
      [] { return true; });
}

void SlotCopier::WaitAll(int turn) {
  for (size_t layer = 0; layer < options_.num_layers; ++layer) WaitLayer(turn, layer);
}

void SlotCopier::ThreadMain(trace::Track* track) {
  const trace::OnTrack on(track);
  Job job;
  while (TakeJob(job) && Copy(job)) {
    job.pending->fetch_sub(1);
    done_.Increment();
  }
}

bool SlotCopier::TakeJob(Job& job) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return stop_ || !jobs_.empty(); });
  if (stop_) return false;
  job = jobs_.front();
  jobs_.pop_front();
  return true;
}

// False when this object ends.
bool SlotCopier::Copy(const Job& job) {
  const trace::Span span(trace::SpanKind::kCopy, static_cast<int64_t>(job.layer));
  const std::span<const std::byte> from = job.from->bytes();
  std::byte* const to = memory_.data() + job.block * options_.block_bytes;
  const auto num_bytes = static_cast<int64_t>(from.size());
  for (int64_t at = 0; at < num_bytes; at += kPieceBytes) {
    const int64_t count = std::min(kPieceBytes, num_bytes - at);
    if (!WaitForTurn(count)) return false;
    std::memcpy(to + at, from.data() + at, static_cast<size_t>(count));
    if (options_.progress != nullptr) options_.progress->fetch_add(1, std::memory_order_relaxed);
  }
  return true;
}

bool SlotCopier::WaitForTurn(int64_t num_bytes) {
  std::unique_lock lock(mutex_);
  const auto begin = limit_.Take(num_bytes, std::chrono::steady_clock::now());
  changed_.wait_until(lock, begin, [this] { return stop_; });
  return !stop_;
}

}  // namespace wideload::moe
