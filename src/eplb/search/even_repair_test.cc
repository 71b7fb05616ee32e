#include "eplb/search/even_repair.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "eplb/placement/even_split.h"
#include "eplb/placement/random.h"
#include "eplb/search/component_plan.h"
#include "eplb/search/repair.h"
#include "eplb/testing.h"

namespace wideload::eplb {
namespace {

// Batches of a load that has moved: expert e is as hot as expert e + shift was.
BatchLoads Shifted(int32_t shift, uint64_t seed) {
  Random random(seed);
  BatchLoads loads{32};
  for (int32_t i = 0; i < 12; ++i) {
    std::vector<double> load;
    for (int32_t e = 0; e < 32; ++e)
      load.push_back(std::floor(4000.0 / (1 + (e + shift) % 32) * std::exp(0.1 * random.Normal())));
    loads.Add(load);
  }
  return loads;
}

const Placement& Now() {
  static const Placement now = ComponentPlan(Shifted(0, 1).Mean(), 40, 8);
  return now;
}

TEST(MeanEvenImbalance, IsThatOfTheEvenSplitWhenAllRanksLive) {
  const BatchLoads loads = Shifted(3, 2);
  double sum = 0;
  for (int32_t i = 0; i < loads.size(); ++i) sum += EvenSplitImbalance(Now(), loads.At(i));
  const std::vector<double> speed(8, 1.0);
  EXPECT_NEAR(MeanEvenImbalance(Now(), loads, speed), sum / loads.size(), 1e-12);
}

TEST(MeanEvenImbalance, CountsNoSlotOfADeadRank) {
  const Placement placement{2, 2, {ExpertId(0), ExpertId(1), ExpertId(0), ExpertId(1)}};
  BatchLoads loads{2};
  loads.Add(std::vector<double>{6, 2});
  EXPECT_DOUBLE_EQ(MeanEvenImbalance(placement, loads, std::vector<double>{1, 1}), 0);
  EXPECT_DOUBLE_EQ(MeanEvenImbalance(placement, loads, std::vector<double>{1, 0}), 0);
  EXPECT_DOUBLE_EQ(MeanEvenImbalance(placement, loads, std::vector<double>{3, 1}), 1);
}

TEST(RepairPlacement, ForAnEvenSplitGainsMoreTheMoreItMayFetch) {
  const BatchLoads recorded = Shifted(5, 3);
  const BatchLoads later = Shifted(5, 4);
  const std::vector<double> speed(8, 1.0);
  double before = MeanEvenImbalance(Now(), later, speed);
  for (const int32_t budget : {2, 6, 40}) {
    const RepairResult result =
        RepairPlacement(Now(), recorded, {.max_fetched_slots = budget, .splits_evenly = true});
    ValidatePlacement(result.placement, "repaired");
    EXPECT_LE(result.fetched_slots, budget);
    EXPECT_EQ(result.fetched_slots, CountFetchedSlots(Now(), result.placement));
    const double after = MeanEvenImbalance(result.placement, later, speed);
    EXPECT_LT(after, 0.9 * before) << budget;
    EXPECT_NEAR(result.imbalance_after, MeanEvenImbalance(result.placement, recorded, speed),
                1e-12);
    before = after;
  }
}

TEST(RepairPlacement, ForAnEvenSplitFetchesNothingWithoutABudget) {
  const RepairResult result =
      RepairPlacement(Now(), Shifted(5, 3), {.max_fetched_slots = 0, .splits_evenly = true});
  EXPECT_EQ(result.placement, Now());
  EXPECT_EQ(result.imbalance_before, result.imbalance_after);
}

TEST(RepairPlacement, ForAnEvenSplitStopsAtTheTarget) {
  const BatchLoads recorded = Shifted(5, 3);
  const RepairOptions all{.max_fetched_slots = 40, .splits_evenly = true};
  const RepairResult best = RepairPlacement(Now(), recorded, all);
  RepairOptions some = all;
  some.until = (best.imbalance_before + best.imbalance_after) / 2;
  const RepairResult result = RepairPlacement(Now(), recorded, some);
  EXPECT_LE(result.imbalance_after, some.until);
  EXPECT_LT(result.fetched_slots, best.fetched_slots);
}

TEST(RepairPlacement, ForAnEvenSplitCoversDeadRanksFirst) {
  const RepairResult result = RepairPlacement(
      Now(), Shifted(5, 3),
      {.max_fetched_slots = 4, .splits_evenly = true, .rank_speed = {1, 1, 1, 0, 1, 1, 1, 1}});
  std::vector<bool> lives(32);
  for (int32_t s = 0; s < 40; ++s) {
    const ExpertId expert = result.placement.slot_expert[static_cast<size_t>(s)];
    const bool is_dead = result.placement.RankOf(SlotId(s)).value == 3;
    if (is_dead)
      EXPECT_EQ(expert, Now().slot_expert[static_cast<size_t>(s)]);
    else
      lives[static_cast<size_t>(expert.value)] = true;
  }
  EXPECT_EQ(lives, std::vector<bool>(32, true));
  EXPECT_LT(result.imbalance_after, result.imbalance_before);
}

TEST(RepairPlacement, ForAnEvenSplitKeepsExpertsOnTheirNodes) {
  const NodeSizes nodes{.num_nodes = 2, .num_groups = 1};
  const RepairOptions options{
      .max_fetched_slots = 8, .splits_evenly = true, .nodes = nodes, .max_cross_slots = -1};
  const RepairResult result = RepairPlacement(Now(), Shifted(5, 3), options);
  EXPECT_LE(result.cross_slots_after, std::max(2, result.cross_slots_before));
}

}  // namespace
}  // namespace wideload::eplb
