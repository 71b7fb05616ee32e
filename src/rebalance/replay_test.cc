#include "rebalance/replay.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace wideload::rebalance {
namespace {

// Two layers of 4 experts on 2 ranks: expert 0 has half of all tokens.
std::vector<int32_t> UnevenCounts(int iterations) {
  std::vector<int32_t> counts;
  for (int i = 0; i < iterations; ++i)
    for (const int32_t tokens : {30, 10, 10, 10, 30, 10, 10, 10}) counts.push_back(tokens);
  return counts;
}

std::vector<eplb::Placement> Start(int32_t num_slots) {
  return std::vector<eplb::Placement>(2, eplb::ContiguousPlacement(4, num_slots, 2));
}

TEST(Replay, WithoutABalancerMeasuresThePlacement) {
  const Replayed replayed = Replay({}, Start(4), UnevenCounts(3), ReplaySplit::kOptimal);
  ASSERT_EQ(replayed.iterations.size(), 3U);
  for (const ReplayedIteration& iteration : replayed.iterations) {
    EXPECT_DOUBLE_EQ(iteration.imbalance, 40.0 / 30 - 1);
    EXPECT_EQ(iteration.routed_tokens, 120);
    EXPECT_EQ(iteration.fetched_slots, 0);
  }
  EXPECT_EQ(replayed.last, Start(4));
}

// The placement is repaired from the first iteration's counts, two iterations later.
TEST(Replay, RepairTakesEffectAfterItsDelay) {
  const OnlineOptions options{.mode = Mode::kRepair, .is_waiting = false};
  const std::vector<eplb::Placement> start(
      2, {4, 2, {ExpertId(0), ExpertId(1), ExpertId(1), ExpertId(2), ExpertId(3), ExpertId(2)}});
  const Replayed replayed = Replay(options, start, UnevenCounts(8), ReplaySplit::kOptimal);
  EXPECT_GT(replayed.iterations[1].imbalance, 0);
  EXPECT_EQ(replayed.iterations[1].fetched_slots, 0);
  EXPECT_GT(replayed.iterations[2].fetched_slots, 0);
  EXPECT_EQ(replayed.iterations[7].imbalance, 0);
  EXPECT_LT(replayed.MeanImbalance(2, 8), replayed.MeanImbalance(0, 2));
  EXPECT_EQ(replayed.figures.num_skipped, 0);
}

// The optimum of this start needs a split that is not even; repair for an even one finds another.
TEST(Replay, RepairsForTheSplitThatIsReplayed) {
  const std::vector<eplb::Placement> start(
      2, {4, 2, {ExpertId(0), ExpertId(1), ExpertId(1), ExpertId(2), ExpertId(3), ExpertId(2)}});
  const Replayed even =
      Replay({.mode = Mode::kRepair}, start, UnevenCounts(12), ReplaySplit::kEven);
  EXPECT_DOUBLE_EQ(even.iterations[0].imbalance, 40.0 / 30 - 1);
  EXPECT_LT(even.iterations[11].imbalance, 1e-9);
  const Replayed optimal =
      Replay({.mode = Mode::kRepair}, start, UnevenCounts(12), ReplaySplit::kOptimal);
  EXPECT_NE(even.last, optimal.last);
}

TEST(Replay, RefusesHalfAnIteration) {
  EXPECT_THROW(Replay({}, Start(4), std::vector<int32_t>(12), ReplaySplit::kEven), Error);
}

}  // namespace
}  // namespace wideload::rebalance
