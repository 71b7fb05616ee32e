// One wait ladder for everything that waits: spin, yield, then sleep on a futex in slices. An
// EventWord may lie in memory shared between processes. Thread-safe.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace wideload {

// How long each step of the ladder lasts. With more threads than cores spinning only keeps others
// from running: use Oversubscribed().
struct WaitLadder {
  // Pause instructions, 100 to 200 us in all, with a sched_yield after every kPausesPerYield: where
  // the scheduler keeps both sides of a wait on one core, the waiting one must not keep the other
  // from running for long.
  int spins = 2000;
  static constexpr int kPausesPerYield = 64;
  int yields = 50;                       // sched_yield calls
  std::chrono::milliseconds slice{100};  // longest sleep before the caller's checks run again

  // For more threads than cores: who waits lets others run at once.
  static WaitLadder Oversubscribed() {
    return {.spins = 0, .yields = 50, .slice = std::chrono::milliseconds(100)};
  }
  // Oversubscribed() when `num_threads` exceeds this process's cores, else the default.
  static WaitLadder For(int num_threads);
};

// A 32-bit value that others wait for. Zero-initialised memory is a valid EventWord.
class EventWord {
 public:
  uint32_t Load() const { return value_.load(std::memory_order_acquire); }
  // Release-stores `value` and wakes sleepers (one system call only if there are any).
  void Publish(uint32_t value);
  // Adds 1, release, and wakes sleepers; returns the new value.
  uint32_t Increment();
  // Sleeps until the value differs from `seen`, a wake-up, or the slice is over; may return early.
  void Sleep(uint32_t seen, std::chrono::microseconds slice);

 private:
  void Wake();

  std::atomic<uint32_t> value_{0};
  std::atomic<uint32_t> sleepers_{0};
};
static_assert(sizeof(EventWord) == 8);

// Tells the core that this thread spins.
void CpuPause();
// Lets another thread run on this core.
void YieldThread();

// Waits until `ready(word.Load())`. After every sleep slice calls `keep_waiting()`; returns false
// as soon as that says no, true when ready. `keep_waiting` is where deadlines, abort words and
// liveness checks live.
template <class Ready, class KeepWaiting>
bool WaitFor(EventWord& word, const WaitLadder& ladder, Ready ready, KeepWaiting keep_waiting) {
  for (int i = 0; i < ladder.spins; ++i) {
    if (ready(word.Load())) return true;
    i % WaitLadder::kPausesPerYield == WaitLadder::kPausesPerYield - 1 ? YieldThread() : CpuPause();
  }
  for (int i = 0; i < ladder.yields; ++i) {
    if (ready(word.Load())) return true;
    YieldThread();
  }
  while (true) {
    const uint32_t seen = word.Load();
    if (ready(seen)) return true;
    if (!keep_waiting()) return false;
    word.Sleep(seen, ladder.slice);
  }
}

}  // namespace wideload
