#include "base/wait.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#include <ctime>
#include <thread>

namespace wideload {

WaitLadder WaitLadder::For(int num_threads) {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  const int num_cores = ::sched_getaffinity(0, sizeof(cores), &cores) == 0
                            ? CPU_COUNT(&cores)
                            : static_cast<int>(std::thread::hardware_concurrency());
  return num_threads > num_cores ? Oversubscribed() : WaitLadder{};
}

// The sleeper counts itself, then re-reads the value inside the kernel; the publisher stores the
// value, then reads the count. Both pairs are sequentially consistent, so one of them sees the
// other.
void EventWord::Publish(uint32_t value) {
  value_.store(value, std::memory_order_seq_cst);
  Wake();
}

uint32_t EventWord::Increment() {
  const uint32_t value = value_.fetch_add(1, std::memory_order_seq_cst) + 1;
  Wake();
  return value;
}

void EventWord::Wake() {
  if (sleepers_.load(std::memory_order_seq_cst) == 0) return;
  ::syscall(SYS_futex, reinterpret_cast<uint32_t*>(&value_), FUTEX_WAKE, INT_MAX, nullptr, nullptr,
            0);
}

void EventWord::Sleep(uint32_t seen, std::chrono::microseconds slice) {
  sleepers_.fetch_add(1, std::memory_order_seq_cst);
  if (value_.load(std::memory_order_seq_cst) == seen) {
    const timespec timeout{.tv_sec = slice.count() / 1'000'000,
                           .tv_nsec = (slice.count() % 1'000'000) * 1000};
    ::syscall(SYS_futex, reinterpret_cast<uint32_t*>(&value_), FUTEX_WAIT, seen, &timeout, nullptr,
              0);
  }
  sleepers_.fetch_sub(1, std::memory_order_seq_cst);
}

void CpuPause() { __builtin_ia32_pause(); }

void YieldThread() { ::sched_yield(); }

}  // namespace wideload
