// The memory of slots that own their bytes, in blocks of one expert each, and the threads that fill
// them in the background. Used by the rank's thread.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "base/wait.h"
#include "compute/matrix.h"
#include "trace/trace.h"

namespace wideload::moe {

// When a copy may go on so that all together stay below a number of bytes per second. Pure; not
// thread-safe.
class BandwidthLimit {
 public:
  // Never goes back.
  using Time = std::chrono::steady_clock::time_point;
  // 0: no limit.
  explicit BandwidthLimit(int64_t bytes_per_second) : bytes_per_second_(bytes_per_second) {}
  // The time from which on the next `num_bytes` may be copied; each call takes its share.
  Time Take(int64_t num_bytes, Time now);

 private:
  int64_t bytes_per_second_;
  Time next_{};
};

// How slots are filled, and how fast at most.
struct CopierOptions {
  int32_t rank = 0;
  int64_t num_blocks = 0;
  int64_t block_bytes = 0;  // of the largest expert
  size_t num_layers = 0;
  int32_t num_threads = 1;
  int64_t bytes_per_second = 0;               // 0: no limit
  std::atomic<uint32_t>* progress = nullptr;  // raised with every piece copied; may be null
  trace::Trace* trace = nullptr;              // gets a track of each thread; may be null
};

class SlotCopier {
 public:
  // Errors: kResource.
  explicit SlotCopier(const CopierOptions& options);
  // Ends the threads, in the middle of their copies.
  ~SlotCopier();
  SlotCopier(const SlotCopier&) = delete;
  SlotCopier& operator=(const SlotCopier&) = delete;

  // Copies the expert into the block now, on this thread.
  void CopyNow(int32_t block, const compute::ExpertWeights& expert);
  // Begins to copy it; nobody reads the block before WaitLayer of the same turn and layer. Turns
  // are 0 and 1: of the placement in use and of the next one.
  void Begin(int32_t block, const compute::ExpertWeights& expert, int turn, size_t layer);
  // Whether every copy of the layer has ended.
  bool IsDone(int turn, size_t layer) const { return Pending(turn, layer).load() == 0; }
  // Until the turn's copies of that layer are there.
  void WaitLayer(int turn, size_t layer);
  // The same for all layers.
  void WaitAll(int turn);

  // Over the block's bytes.
  const compute::ExpertWeights& weights(int32_t block) const {
    return weights_[static_cast<size_t>(block)];
  }
  int64_t num_bytes() const { return memory_.num_bytes(); }
  // What a block takes whose largest expert has so many bytes.
  static int64_t BlockBytes(int64_t expert_bytes);

 private:
  struct Job {
    const compute::ExpertWeights* from = nullptr;
    int32_t block = 0;
    size_t layer = 0;
    std::atomic<int32_t>* pending = nullptr;
  };
  const std::atomic<int32_t>& Pending(int turn, size_t layer) const {
    return pending_[static_cast<size_t>(turn) * options_.num_layers + layer];
  }
  void Reshape(int32_t block, const compute::ExpertWeights& expert);
  void ThreadMain(trace::Track* track);
  bool TakeJob(Job& job);
  bool Copy(const Job& job);
  bool WaitForTurn(int64_t num_bytes);

  CopierOptions options_;
  Buffer memory_;
  std::vector<compute::ExpertWeights> weights_;  // [blocks]
  std::vector<std::atomic<int32_t>> pending_;    // [turns * layers] copies that have not ended
  EventWord done_;                               // copies that have
  std::mutex mutex_;                             // guards what follows
  std::condition_variable changed_;
  std::deque<Job> jobs_;
  BandwidthLimit limit_;
  bool stop_ = false;
  std::vector<std::jthread> threads_;
};

}  // namespace wideload::moe
