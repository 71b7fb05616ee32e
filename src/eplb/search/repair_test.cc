#include "eplb/search/repair.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "eplb/placement/even_split.h"
#include "eplb/search/component_plan.h"
#include "eplb/split/water_filling.h"
#include "eplb/testing.h"

namespace wideload::eplb {
namespace {

// Slots that hold another expert.
int32_t NumDifferent(const Placement& a, const Placement& b) {
  int32_t different = 0;
  for (size_t s = 0; s < a.slot_expert.size(); ++s)
    different += a.slot_expert[s] != b.slot_expert[s];
  return different;
}

TEST(RepairPlacement, KeepsWithinItsBudgetAndNeverMakesItWorse) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    const Placement now = ComponentPlan(RandomBatches(32, 1, seed).Mean(), 40, 8);
    const BatchLoads drifted = RandomBatches(32, 6, seed + 100);
    for (const int32_t budget : {0, 1, 2, 6}) {
      RepairOptions options;
      options.max_fetched_slots = budget;
      const RepairResult result = RepairPlacement(now, drifted, options);
      ValidatePlacement(result.placement, "repaired");
      EXPECT_EQ(result.fetched_slots, CountFetchedSlots(now, result.placement));
      EXPECT_EQ(result.fetched_slots, NumDifferent(now, result.placement)) << "seed " << seed;
      EXPECT_LE(result.fetched_slots, budget);
      EXPECT_NEAR(result.imbalance_before, MeanOptimalImbalance(now, drifted), kSumRounding);
      EXPECT_NEAR(result.imbalance_after, MeanOptimalImbalance(result.placement, drifted),
                  kSumRounding);
      EXPECT_LE(result.imbalance_after, result.imbalance_before);
    }
  }
}

TEST(RepairPlacement, CoversTheExpertsOfADeadRankFirst) {
  const BatchLoads scenarios = RandomBatches(32, 4, 5);
  const Placement now = ComponentPlan(scenarios.Mean(), 48, 8);
  RepairOptions options;
  options.max_fetched_slots = 0;
  options.rank_speed = {1, 1, 0, 1, 1, 1, 1, 1};
  const RepairResult result = RepairPlacement(now, scenarios, options);
  WaterFilling split(result.placement, {options.rank_speed, 0});
  split.Solve(scenarios.At(0));
  EXPECT_EQ(split.unplaced_tokens(), 0);
  EXPECT_GT(result.fetched_slots, 0);
  for (int32_t s = 12; s < 18; ++s)
    EXPECT_EQ(result.placement.slot_expert[static_cast<size_t>(s)],
              now.slot_expert[static_cast<size_t>(s)]);
  options.rank_speed = {1, 0, 0, 0, 0, 0, 0, 0};
  EXPECT_THROW(RepairPlacement(now, scenarios, options), Error);
}

}  // namespace
}  // namespace wideload::eplb
