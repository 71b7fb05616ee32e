#include "eplb/search/node_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "base/error.h"
#include "eplb/policies/deepseek_policy.h"
#include "eplb/search/scenario_planner.h"
#include "eplb/split/water_filling.h"
#include "eplb/testing.h"

namespace wideload::eplb {
namespace {

constexpr int32_t kExperts = 32;
constexpr int32_t kSlots = 48;
constexpr int32_t kRanks = 8;
constexpr int32_t kNodes = 4;
constexpr int32_t kGroups = 8;

PlanOptions OptionsFor(int32_t max_cross_slots) {
  PlanOptions options;
  options.num_ranks = kRanks;
  options.num_slots = kSlots;
  options.nodes = {kNodes, kGroups};
  options.max_cross_slots = max_cross_slots;
  options.num_scenarios = 32;
  return options;
}

std::set<int32_t> NodesOf(const Placement& placement, int32_t expert) {
  std::set<int32_t> nodes;
  for (int32_t s = 0; s < placement.num_slots(); ++s)
    if (placement.slot_expert[static_cast<size_t>(s)].value == expert)
      nodes.insert(placement.RankOf(SlotId(s)).value / (kRanks / kNodes));
  return nodes;
}

// Nodes that hold every expert of the group.
std::set<int32_t> NodesOfGroup(const Placement& placement, int32_t group) {
  const int32_t first = group * (kExperts / kGroups);
  std::set<int32_t> common = NodesOf(placement, first);
  for (int32_t e = first + 1; e < first + kExperts / kGroups; ++e) {
    std::set<int32_t> both;
    std::ranges::set_intersection(common, NodesOf(placement, e), std::inserter(both, both.begin()));
    common = both;
  }
  return common;
}

int32_t SlotsAcrossNodes(const Placement& placement) {
  int32_t across = 0;
  for (int32_t e = 0; e < kExperts; ++e)
    across += static_cast<int32_t>(NodesOf(placement, e).size()) - 1;
  return across;
}

// What the slots hold is a start only where it keeps the bound on slots across nodes.
TEST(PlanPlacement, KeepsTheNodeRuleWhateverAFetchCosts) {
  const BatchLoads recorded = RandomBatches(kExperts, 8, 21);
  const Placement now = PlanPlacement(RandomBatches(kExperts, 8, 20), OptionsFor(kNodes));
  ASSERT_GT(SlotsAcrossNodes(now), 1);
  for (const double price : {1e-3, 1e9}) {
    for (const int32_t cross : {1, kNodes}) {
      PlanOptions options = OptionsFor(cross);
      options.current = &now;
      options.fetch_price = price;
      const Placement plan = PlanPlacement(recorded, options);
      ValidatePlacement(plan, "plan");
      EXPECT_LE(SlotsAcrossNodes(plan), cross);
      for (int32_t group = 0; group < kGroups; ++group)
        EXPECT_FALSE(NodesOfGroup(plan, group).empty()) << group;
      EXPECT_EQ(plan == now, price == 1e9 && cross == kNodes);
    }
  }
}

TEST(PlanPlacement, KeepsGroupsOnNodesButForABoundedNumberOfSlots) {
  double within = 0;
  double bounded = 0;
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    const BatchLoads recorded = RandomBatches(kExperts, 6, seed);
    for (const int32_t cross : {0, 1, kNodes}) {
      const Placement plan = PlanPlacement(recorded, OptionsFor(cross));
      ValidatePlacement(plan, "plan");
      EXPECT_LE(SlotsAcrossNodes(plan), cross);
      for (int32_t group = 0; group < kGroups; ++group)
        EXPECT_FALSE(NodesOfGroup(plan, group).empty()) << "group " << group;
      if (cross == 0) within += MeanOptimalImbalance(plan, recorded);
      if (cross == kNodes) bounded += MeanOptimalImbalance(plan, recorded);
    }
  }
  EXPECT_LT(bounded, within / 3);
}

TEST(PlanPlacement, BalancesNodesBetterThanTheHierarchicalPolicy) {
  double ours = 0;
  double published = 0;
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    const BatchLoads recorded = RandomBatches(kExperts, 6, seed);
    const std::vector<double> mean = recorded.Mean();
    const Placement deepseek = DeepSeekPlacement(
        std::vector<float>(mean.begin(), mean.end()),
        {.num_slots = kSlots, .num_groups = kGroups, .num_nodes = kNodes, .num_ranks = kRanks});
    ours += MeanOptimalImbalance(PlanPlacement(recorded, OptionsFor(0)), recorded);
    published += MeanOptimalImbalance(deepseek, recorded);
  }
  EXPECT_LT(ours, published);
}

TEST(PlanPlacement, RelabelsRanksWithinTheirNode) {
  const BatchLoads recorded = RandomBatches(kExperts, 4, 3);
  PlanOptions options = OptionsFor(2);
  const Placement now = PlanPlacement(RandomBatches(kExperts, 4, 4), options);
  options.current = &now;
  const Placement plan = PlanPlacement(recorded, options);
  EXPECT_LE(SlotsAcrossNodes(plan), 2);
  for (int32_t group = 0; group < kGroups; ++group)
    EXPECT_FALSE(NodesOfGroup(plan, group).empty()) << "group " << group;
}

// Experts without load are spread, too: no node stays empty.
TEST(MakeNodeRule, GivesEveryNodeAnExpert) {
  BatchLoads scenarios{5, {}, {}};
  scenarios.Add(std::vector<double>{1, 0, 0, 0, 0});
  const NodeRule rule = MakeNodeRule(scenarios, {4, 1}, 4, 0);
  EXPECT_EQ(std::set<int32_t>(rule.home.begin(), rule.home.end()).size(), 4u);
  PlanOptions options;
  options.num_ranks = 4;
  options.num_slots = 8;
  options.nodes = {4, 1};
  options.num_scenarios = 1;  // one is all there is of wide ones, too
  ValidatePlacement(PlanPlacement(scenarios, options), "plan");
}

TEST(MakeNodeRule, RefusesSizesThatDoNotDivide) {
  const BatchLoads scenarios = RandomBatches(kExperts, 2, 1);
  const auto refuses = [&scenarios](const NodeSizes& nodes, const std::string& what) {
    try {
      MakeNodeRule(scenarios, nodes, kRanks, 0);
      ADD_FAILURE() << what << " accepted";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(what), std::string::npos) << error.what();
    }
  };
  refuses({3, 1}, "num_nodes is 3");
  EXPECT_THROW(MakeNodeRule(RandomBatches(2, 1, 1), {4, 1}, kRanks, 0), Error);
  refuses({2, 5}, "num_groups is 5");
  refuses({4, 2}, "num_groups is 2");
  refuses({1, 4}, "num_groups is 4");
  EXPECT_TRUE(MakeNodeRule(scenarios, {1, 1}, kRanks, 0).home.empty());
}

}  // namespace
}  // namespace wideload::eplb
