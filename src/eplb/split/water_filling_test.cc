#include "eplb/split/water_filling.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <span>
#include <vector>

#include "eplb/placement/random.h"
#include "eplb/replay/bounds.h"
#include "eplb/testing.h"

namespace wideload::eplb {
namespace {

TEST(WaterFilling, ReachesTheMinimumCutWhereverWholeTokensDo) {
  for (uint64_t seed = 0; seed < 300; ++seed) {
    Random random(seed);
    const int32_t ranks = 1 + random.Below(9);
    const int32_t slots = ranks * (1 + random.Below(8));
    const int32_t experts = 1 + random.Below(slots);
    const Placement placement = RandomPlacement(experts, slots, ranks, seed);
    const BatchLoads scenarios = RandomBatches(experts, 3, seed);
    WaterFilling split(placement);
    for (int32_t k = 0; k < scenarios.size(); ++k) {
      const std::span<const double> load = scenarios.At(k);
      const double busiest = split.Solve(load);
      const std::vector<int64_t> counts(load.begin(), load.end());
      ASSERT_EQ(OptimalWholeMaximum(placement, counts),
                static_cast<int64_t>(std::ceil(busiest - kSumRounding)))
          << "seed " << seed;
      const double sum =
          std::accumulate(split.slot_tokens().begin(), split.slot_tokens().end(), 0.0);
      ASSERT_NEAR(sum, std::accumulate(load.begin(), load.end(), 0.0), kSumRounding * (1 + sum));
    }
  }
}

TEST(WaterFilling, GivesASlowRankLessAndADeadRankNothing) {
  const Placement placement{
      2, 3, {ExpertId(0), ExpertId(1), ExpertId(0), ExpertId(1), ExpertId(0), ExpertId(1)}};
  WaterFilling split(placement, {{1.0, 0.5, 0.0}, 0});
  EXPECT_NEAR(split.Solve(std::vector<double>{60, 30}), 60, kSumRounding);
  EXPECT_NEAR(split.rank_tokens()[1], 30, kSumRounding);
  EXPECT_EQ(split.rank_tokens()[2], 0);
}

TEST(WaterFilling, LeavesASlotIdleWhenOpeningItCostsMoreThanItSaves) {
  const Placement placement{2, 2, {ExpertId(0), ExpertId(1), ExpertId(0), ExpertId(1)}};
  WaterFilling cheap(placement, {{}, 0});
  WaterFilling dear(placement, {{}, 100});
  EXPECT_NEAR(cheap.Solve(std::vector<double>{10, 8}), 9, kSumRounding);
  EXPECT_NEAR(dear.Solve(std::vector<double>{10, 8}), 110, kSumRounding);
}

}  // namespace
}  // namespace wideload::eplb
