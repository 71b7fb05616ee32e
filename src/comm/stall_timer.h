// How long no rank of a group has got on with its work. Used by one thread.
#pragma once

#include <chrono>

#include "comm/communicator.h"

namespace wideload::comm {

class StallTimer {
 public:
  // Never goes back.
  using Clock = std::chrono::steady_clock;

  // Counts from `start` on. `group` must outlive this object.
  explicit StallTimer(const Communicator& group, Clock::time_point start = Clock::now())
      : group_(group), last_look_(start) {}

  // Time since the start or the last progress of any rank, seen from the calls of this function.
  // While nobody calls it for long the caller was stopped itself (a signal, a debugger, a machine
  // put to sleep): of such a gap only kLongestStep counts.
  Clock::duration Elapsed(Clock::time_point now = Clock::now());

  static constexpr std::chrono::milliseconds kLongestStep{500};

 private:
  const Communicator& group_;
  Clock::time_point last_look_;
  Clock::duration elapsed_{0};
  uint32_t progress_seen_ = 0;
  bool has_looked_ = false;
};

}  // namespace wideload::comm
