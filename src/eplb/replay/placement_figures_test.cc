#include "eplb/replay/placement_figures.h"

#include <gtest/gtest.h>

#include "eplb/placement/even_split.h"
#include "eplb/search/component_plan.h"

namespace wideload::eplb {
namespace {

constexpr double kBisectionRounding = 1e-8;  // the capacity bound is found by bisection to 1e-9

Placement Make(int32_t num_experts, int32_t num_ranks, const std::vector<int32_t>& experts) {
  Placement placement{.num_experts = num_experts, .num_ranks = num_ranks, .slot_expert = {}};
  for (const int32_t expert : experts) placement.slot_expert.emplace_back(expert);
  return placement;
}

TEST(PlacementFigures, TellBothSplits) {
  // Expert 0 is on both ranks: an even split loads them with 60 + 20 and 60 + 100, the best 120
  // each.
  const Placement placement = Make(3, 2, {0, 1, 0, 2});
  BatchLoads batches{.num_experts = 3, .loads = {}, .weights = {}};
  batches.Add(std::vector<double>{120, 20, 100});
  const PlacementFigures figures = JudgePlacement(placement, batches);
  EXPECT_NEAR(figures.imbalance_even, 160.0 / 120 - 1, kBisectionRounding);
  EXPECT_NEAR(figures.imbalance_optimal, 0, kBisectionRounding);
  EXPECT_EQ(figures.num_components, 1);
  EXPECT_EQ(figures.duplicate_slots, 0);
}

TEST(PlacementFigures, AverageOverBatchesByWeight) {
  const Placement placement = Make(2, 2, {0, 1});
  BatchLoads batches{.num_experts = 2, .loads = {}, .weights = {}};
  batches.Add(std::vector<double>{1, 1}, 3);
  batches.Add(std::vector<double>{2, 0}, 1);
  const PlacementFigures figures = JudgePlacement(placement, batches);
  EXPECT_NEAR(figures.imbalance_even, 0.25, kBisectionRounding);
  EXPECT_NEAR(figures.imbalance_optimal, 0.25, kBisectionRounding);
  EXPECT_EQ(figures.num_components, 2);
}

TEST(PlacementFigures, CountDuplicates) {
  const Placement placement = Make(2, 2, {0, 0, 1, 0});
  EXPECT_EQ(
      JudgePlacement(placement, {.num_experts = 2, .loads = {}, .weights = {}}).duplicate_slots, 1);
}

TEST(PlacementBounds, BindWithoutSpareSlots) {
  BatchLoads batches{.num_experts = 4, .loads = {}, .weights = {}};
  batches.Add(std::vector<double>{70, 10, 10, 10});
  const PlacementBounds tight = BoundPlacements(batches, {.num_slots = 4, .num_ranks = 4});
  EXPECT_NEAR(tight.replica_capacity, 70.0 / 25 - 1, kBisectionRounding);
  EXPECT_EQ(tight.fewest_components, 4);
  EXPECT_NEAR(BoundPlacements(batches, {.num_slots = 8, .num_ranks = 4}).replica_capacity, 0,
              kBisectionRounding);
}

TEST(FetchedSlots, AreThoseWhoseRankLacksTheExpert) {
  const Placement before = Make(4, 2, {0, 1, 2, 3});
  EXPECT_EQ(CountFetchedSlots(before, Make(4, 2, {1, 0, 3, 2})), 0);
  EXPECT_EQ(CountFetchedSlots(before, Make(4, 2, {0, 2, 1, 3})), 2);
  EXPECT_EQ(CountFetchedSlots(before, Make(4, 2, {0, 1, 3, 2, 3, 0})), 2);  // 3 to rank 0, 0 to 1
}

TEST(SlotsForOneComponent, IsOneReplicaLessThanRanks) {
  EXPECT_EQ(SlotsForOneComponent(256, 32), 288);
  EXPECT_EQ(SlotsForOneComponent(256, 36), 324);
  EXPECT_EQ(SlotsForOneComponent(64, 8), 72);
  EXPECT_EQ(SlotsForOneComponent(5, 1), 5);
}

}  // namespace
}  // namespace wideload::eplb
