// Signs of life between ranks of different hosts: a thread of each rank sends them at a steady
// pace, whatever the rank is doing. Thread-safe.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace wideload::comm {

// Counts for how many of this rank's own beats nothing has come from a peer. A rank that was
// stopped itself (SIGSTOP, a sleeping machine) does not count that time against the others.
class PulseCounts {
 public:
  // As if all had just been heard.
  explicit PulseCounts(int num_ranks) : silent_beats_(static_cast<size_t>(num_ranks)) {}

  // A sign of life of `peer` has come.
  void Heard(int peer) { silent_beats_[static_cast<size_t>(peer)] = 0; }
  // A beat has passed without one of anybody, until they are heard.
  void CountBeat() {
    for (std::atomic<int>& silent : silent_beats_) ++silent;
  }
  // Beats since `peer` was heard last.
  int SilentBeats(int peer) const { return silent_beats_[static_cast<size_t>(peer)]; }

 private:
  std::vector<std::atomic<int>> silent_beats_;  // [num_ranks]
};

// Calls `beat` every `pace` from a thread of its own until it is destroyed.
class Pulse {
 public:
  // Starts the thread, which calls `beat` at that pace.
  Pulse(std::chrono::milliseconds pace, std::function<void()> beat);
  ~Pulse();
  Pulse(const Pulse&) = delete;
  Pulse& operator=(const Pulse&) = delete;

 private:
  std::mutex mutex_;
  std::condition_variable stopped_;
  bool stop_ = false;
  std::jthread thread_;
};

}  // namespace wideload::comm
