#include "comm/local/local_communicator.h"

#include <gtest/gtest.h>

#include "comm/local/rank_threads.h"

namespace wideload::comm {
namespace {

TEST(LocalGroup, RefusesAGroupWithoutRanks) {
  EXPECT_THROW(LocalGroup(0, {}), Error);
  EXPECT_THROW(LocalGroup(2, {.deadline = std::chrono::milliseconds(0)}), Error);
}

TEST(LocalGroup, OneRankPassesEveryCollectiveAlone) {
  LocalGroup group(1, {});
  Communicator& communicator = group.rank(0);
  communicator.Barrier();
  std::vector<int32_t> all(1);
  communicator.AllGatherValue(int32_t{5}, std::span(all));
  EXPECT_EQ(all[0], 5);
  std::vector<float> data = {1.5F, 2.5F};
  communicator.AllReduceSum(data);
  EXPECT_EQ(data, (std::vector<float>{1.5F, 2.5F}));
  EXPECT_EQ(communicator.wait_statistics().num_waits, 0);
}

TEST(PeerLost, SaysWhoWaitedWhereAndForWhat) {
  const PeerLost lost({.rank = 2,
                       .peer = 5,
                       .where = {.iteration = 17, .layer = 3},
                       .awaited = "the rows of round 12",
                       .cause = "no answer for 5.0 s"});
  EXPECT_STREQ(lost.what(),
               "rank 2, iteration 17, layer 3: waited for the rows of round 12 of rank 5: no "
               "answer for 5.0 s");
  EXPECT_EQ(lost.kind(), ErrorKind::kRunFailed);
}

TEST(PeerLost, LeavesOutAPlaceThatIsNone) {
  const PeerLost lost({.rank = 0, .peer = 1, .awaited = "the barrier", .cause = "it is dead"});
  EXPECT_STREQ(lost.what(), "rank 0: waited for the barrier of rank 1: it is dead");
}

}  // namespace
}  // namespace wideload::comm
