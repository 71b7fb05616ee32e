#include "comm/stall_timer.h"

#include <algorithm>
#include <utility>

namespace wideload::comm {

StallTimer::Clock::duration StallTimer::Elapsed(Clock::time_point now) {
  uint32_t progress = 0;
  for (int r = 0; r < group_.size(); ++r) progress += group_.ProgressOf(r);
  const Clock::duration step =
      std::min<Clock::duration>(now - std::exchange(last_look_, now), kLongestStep);
  const bool is_stalled = std::exchange(progress_seen_, progress) == progress || !has_looked_;
  has_looked_ = true;
  elapsed_ = is_stalled ? elapsed_ + step : Clock::duration(0);
  return elapsed_;
}

}  // namespace wideload::comm
