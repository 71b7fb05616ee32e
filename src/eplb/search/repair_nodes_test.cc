// Repair over nodes: experts keep a slot at home, few slots hold experts of other nodes.
#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"
#include "eplb/placement/even_split.h"
#include "eplb/placement/index.h"
#include "eplb/placement/random.h"
#include "eplb/policies/deepseek_policy.h"
#include "eplb/search/repair.h"
#include "eplb/search/scenario_planner.h"
#include "eplb/search/target_repair.h"
#include "eplb/split/water_filling.h"
#include "eplb/testing.h"

namespace wideload::eplb {
namespace {

constexpr NodeSizes kNodeSizes{4, 8};

Placement HierarchicalPlan(uint64_t seed) {
  const std::vector<double> mean = RandomBatches(32, 1, seed).Mean();
  return DeepSeekPlacement(std::vector<float>(mean.begin(), mean.end()),
                           {.num_slots = 48, .num_groups = 8, .num_nodes = 4, .num_ranks = 8});
}

// As many slots across nodes as `max_cross` under the homes of `start`, and every expert that had a
// slot at home has one.
void ExpectKept(const Placement& start, const Placement& repaired, const NodeSizes& nodes,
                int32_t max_cross, const std::string& what) {
  ValidatePlacement(repaired, what);
  const NodeRule homes = HomesOf(start, nodes);
  const NodeSlots before = CountNodeSlots(start, homes);
  const NodeSlots after = CountNodeSlots(repaired, homes);
  EXPECT_LE(after.num_crossing, max_cross) << what;
  for (size_t e = 0; e < before.at_home.size(); ++e)
    EXPECT_TRUE(after.at_home[e] > 0 || before.at_home[e] == 0) << what << ", expert " << e;
}

TEST(RepairOverNodes, KeepsTheRuleAfterEveryStep) {
  int32_t crossing = 0;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    const int32_t max_cross = static_cast<int32_t>(seed % 4);
    Placement now = HierarchicalPlan(seed);
    for (uint64_t step = 1; step <= 6; ++step) {
      RepairOptions options{.max_fetched_slots = 3, .seed = seed, .nodes = kNodeSizes};
      options.max_cross_slots = max_cross;
      const RepairResult result =
          RepairPlacement(now, RandomBatches(32, 3, 100 * seed + step), options);
      const std::string what = fmt::format("seed {}, step {}", seed, step);
      ExpectKept(now, result.placement, kNodeSizes, max_cross, what);
      EXPECT_EQ(result.cross_slots_after,
                CountNodeSlots(result.placement, HomesOf(now, kNodeSizes)).num_crossing)
          << what;
      EXPECT_LE(result.imbalance_after, result.imbalance_before) << what;
      now = result.placement;
    }
    crossing += CountNodeSlots(now, HomesOf(now, kNodeSizes)).num_crossing;
  }
  EXPECT_GT(crossing, 10);
}

TEST(RepairOverNodes, KeepsTheRuleOnItsWayToATarget) {
  int repaired = 0;
  int fewer = 0;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    const Placement now = HierarchicalPlan(seed);
    const BatchLoads drifted = RandomBatches(32, 1, seed + 100);
    NodeRule rule = HomesOf(now, kNodeSizes);
    rule.max_cross_slots = 4;
    const auto found = RepairToTarget(now, drifted, {0.05, 24, std::vector<double>(8, 1.0), rule});
    RepairOptions options{
        .max_fetched_slots = 24, .until = 0.05, .seed = seed, .nodes = kNodeSizes};
    const RepairResult result = RepairPlacement(now, drifted, options);
    ExpectKept(now, result.placement, kNodeSizes, 4, fmt::format("seed {}", seed));
    if (!found) continue;
    ++repaired;
    ExpectKept(now, *found, kNodeSizes, 4, fmt::format("target, seed {}", seed));
    EXPECT_LE(MeanOptimalImbalance(*found, drifted), 0.05);
    EXPECT_LE(result.fetched_slots, CountFetchedSlots(now, *found));
    rule.max_cross_slots = 0;
    fewer += !RepairToTarget(now, drifted, {0.05, 24, std::vector<double>(8, 1.0), rule});
  }
  EXPECT_GE(repaired, 10);
  EXPECT_GE(fewer, 5);  // the bound binds
}

TEST(RepairOverNodes, DoesNotMakeAFlatPlacementWorse) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    const Placement now = RandomPlacement(32, 48, 8, seed);
    const BatchLoads drifted = RandomBatches(32, 3, seed + 100);
    RepairOptions options{.max_fetched_slots = 12, .until = seed % 2 == 0 ? 0.02 : 0};
    options.nodes = {2, 1};
    const int32_t crossing = CountNodeSlots(now, HomesOf(now, options.nodes)).num_crossing;
    ASSERT_GT(crossing, 2);
    const RepairResult result = RepairPlacement(now, drifted, options);
    EXPECT_EQ(result.cross_slots_before, crossing);
    EXPECT_GT(result.fetched_slots, 0);
    ExpectKept(now, result.placement, options.nodes, crossing, fmt::format("seed {}", seed));
    options.max_cross_slots = crossing - 1;
    EXPECT_THROW(RepairPlacement(now, drifted, options), Error);
    options.max_cross_slots = crossing;
    EXPECT_EQ(RepairPlacement(now, drifted, options).placement, result.placement);
  }
}

// A group that is on no node as a whole: what is at home stays there.
TEST(RepairOverNodes, TakesGroupsThatAreTornApart) {
  const Placement now = RandomPlacement(32, 48, 8, 7);
  const BatchLoads drifted = RandomBatches(32, 3, 8);
  const RepairResult result =
      RepairPlacement(now, drifted, {.max_fetched_slots = 10, .nodes = kNodeSizes});
  EXPECT_GT(result.cross_slots_before, kNodeSizes.num_nodes);
  EXPECT_GT(result.fetched_slots, 0);
  ExpectKept(now, result.placement, kNodeSizes, result.cross_slots_before, "torn groups");
}

TEST(RepairOverNodes, CoversExpertsOfADeadRankAtHome) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    const BatchLoads recorded = RandomBatches(16, 3, seed);
    PlanOptions plan{.num_ranks = 8, .num_slots = 32, .nodes = {2, 1}, .max_cross_slots = 2};
    plan.num_scenarios = 16;
    const Placement now = PlanPlacement(recorded, plan);
    RepairOptions options{.max_fetched_slots = 0, .rank_speed = {1, 1, 1, 0, 1, 1, 1, 1}};
    options.nodes = plan.nodes;
    options.max_cross_slots = 2;
    const RepairResult result = RepairPlacement(now, recorded, options);
    const NodeSlots live =
        CountNodeSlots(result.placement, HomesOf(now, plan.nodes), options.rank_speed);
    for (int32_t e = 0; e < 16; ++e) EXPECT_GT(live.at_home[Index(e)], 0) << "expert " << e;
    EXPECT_LE(live.num_crossing, 2) << "seed " << seed;
    // Both ranks of a node of two dead: covering goes before nodes.
    options.nodes = {4, 1};
    options.max_cross_slots = -1;
    options.rank_speed = {1, 1, 0, 0, 1, 1, 1, 1};
    const RepairResult away = RepairPlacement(now, recorded, options);
    WaterFilling split(away.placement, {options.rank_speed, 0});
    split.Solve(recorded.At(0));
    EXPECT_EQ(split.unplaced_tokens(), 0);
  }
}

}  // namespace
}  // namespace wideload::eplb
