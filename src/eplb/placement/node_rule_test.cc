#include "eplb/placement/node_rule.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace wideload::eplb {
namespace {

Placement PlacementOf(int32_t num_experts, int32_t num_ranks, const std::vector<int32_t>& slots) {
  Placement placement{num_experts, num_ranks, {}};
  for (const int32_t expert : slots) placement.slot_expert.emplace_back(expert);
  return placement;
}

TEST(HomesOf, TakesTheNodeThatHoldsMostSlotsOfAnExpert) {
  // Two nodes of two ranks of two slots.
  const Placement placement = PlacementOf(4, 4, {0, 1, 0, 3, 2, 0, 1, 3});
  const NodeRule rule = HomesOf(placement, {2, 1});
  EXPECT_EQ(rule.home, (std::vector<int32_t>{0, 0, 1, 0}));  // of ties the first node
  EXPECT_EQ(rule.ranks_per_node, 2);
  EXPECT_TRUE(HomesOf(placement, {1, 1}).home.empty());
}

TEST(HomesOf, TakesTheNodeThatHoldsMostExpertsOfAGroup) {
  // The second node has more slots of experts 0 and 1, but not all of them.
  const Placement placement = PlacementOf(4, 2, {0, 1, 2, 3, 0, 0, 0, 3});
  EXPECT_EQ(HomesOf(placement, {2, 2}).home, (std::vector<int32_t>{0, 0, 0, 0}));
}

TEST(HomesOf, RefusesSizesThatDoNotDivide) {
  const Placement placement = PlacementOf(4, 4, {0, 1, 0, 3, 2, 0, 1, 3});
  EXPECT_THROW(HomesOf(placement, {3, 1}), Error);
  EXPECT_THROW(HomesOf(placement, {2, 3}), Error);
  EXPECT_THROW(HomesOf(placement, {1, 2}), Error);
}

TEST(CountNodeSlots, LeavesSlotsOfDeadRanksOut) {
  const Placement placement = PlacementOf(4, 4, {0, 1, 0, 3, 2, 0, 1, 3});
  const NodeRule rule = HomesOf(placement, {2, 1});
  NodeSlots count = CountNodeSlots(placement, rule);
  EXPECT_EQ(count.num_crossing, 3);
  EXPECT_EQ(count.at_home, (std::vector<int32_t>{2, 1, 1, 1}));
  count = CountNodeSlots(placement, rule, std::vector<double>{1, 0, 1, 0.5});
  EXPECT_EQ(count.num_crossing, 3);
  EXPECT_EQ(count.at_home, (std::vector<int32_t>{1, 1, 1, 0}));
  EXPECT_EQ(CountNodeSlots(placement, rule, std::vector<double>{1, 1, 0, 0}).num_crossing, 0);
}

}  // namespace
}  // namespace wideload::eplb
