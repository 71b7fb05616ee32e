#include "comm/stall_timer.h"

#include <gtest/gtest.h>

#include <thread>

#include "base/thread_pool.h"
#include "comm/local/local_communicator.h"
#include "comm/local/rank_threads.h"

namespace wideload::comm {
namespace {

using std::chrono::milliseconds;

const StallTimer::Clock::time_point kStart{std::chrono::hours(1)};

TEST(StallTimer, StartsAgainWhenAnyRankGetsOn) {
  LocalGroup group(3, {});
  StallTimer timer(group.rank(0), kStart);
  EXPECT_EQ(timer.Elapsed(kStart + milliseconds(100)), milliseconds(100));
  EXPECT_EQ(timer.Elapsed(kStart + milliseconds(200)), milliseconds(200));
  group.rank(2).progress().fetch_add(1);
  EXPECT_EQ(timer.Elapsed(kStart + milliseconds(300)), milliseconds(0));
  EXPECT_EQ(timer.Elapsed(kStart + milliseconds(350)), milliseconds(50));
}

TEST(StallTimer, LeavesOutMostOfAGapInWhichNobodyLooked) {
  LocalGroup group(1, {});
  StallTimer timer(group.rank(0), kStart);
  EXPECT_EQ(timer.Elapsed(kStart + milliseconds(100)), milliseconds(100));
  EXPECT_EQ(timer.Elapsed(kStart + std::chrono::minutes(5)),
            milliseconds(100) + StallTimer::kLongestStep);
}

// Ranks 0 and 1 wait twice as long as the deadline while rank 2 works.
TEST(WaitGuard, WaitsForARankThatGetsOnWithItsWork) {
  LocalGroup group(3, {.deadline = milliseconds(400)});
  const RankOutcome outcome = RunRanks(group, [](Communicator& communicator) {
    if (communicator.rank() == 2) {
      ThreadPool pool("work", 1);
      pool.CountProgress(communicator.progress());
      pool.Run(40, [](int64_t, int) { std::this_thread::sleep_for(milliseconds(20)); });
    }
    communicator.Barrier();
  });
  EXPECT_EQ(outcome.error, "");
}

}  // namespace
}  // namespace wideload::comm
