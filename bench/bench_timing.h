// What benchmarks of kernels share.
#pragma once

#include <time.h>

#include <algorithm>
#include <vector>

namespace wideload::bench {

// With one thread its own CPU time, so that others on the machine cost only their cache misses;
// with more, time on the wall.
struct Clock {
  clockid_t id = CLOCK_MONOTONIC;
  double Seconds() const {
    timespec now{};
    ::clock_gettime(id, &now);
    return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
  }
};

inline Clock ClockFor(int threads) {
  return {.id = threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC};
}

inline double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace wideload::bench
