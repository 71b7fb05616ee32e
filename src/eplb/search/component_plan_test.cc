#include "eplb/search/component_plan.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "eplb/placement/even_split.h"
#include "eplb/placement/random.h"
#include "eplb/split/split_graph.h"
#include "eplb/testing.h"

namespace wideload::eplb {
namespace {

TEST(ComponentPlan, JoinsRanksIntoAsFewComponentsAsSlotsAllow) {
  const BatchLoads scenarios = RandomBatches(64, 4, 7);
  for (const int32_t slots : {72, 80, 96, 64}) {
    for (const int32_t ranks : {8, 16}) {
      if (slots % ranks != 0) continue;
      const Placement plan = ComponentPlan(scenarios.Mean(), slots, ranks);
      ValidatePlacement(plan, "plan");
      EXPECT_EQ(CountDuplicateSlots(plan), 0);
      EXPECT_EQ(MakeSplitGraph(plan).num_components, FewestComponents(64, slots, ranks));
    }
  }
}

// Many slots and few experts with load: hot experts have a slot on every rank, and the last of them
// find only some ranks free.
TEST(ComponentPlan, PutsNoExpertTwiceOnARankWhileAnotherChoiceExists) {
  Random random(5);
  for (int round = 0; round < 400; ++round) {
    const int32_t ranks = 2 + random.Below(6);
    const int32_t experts = ranks + random.Below(20);
    const int32_t least = (experts + ranks - 1) / ranks;
    const int32_t slots = ranks * (least + random.Below(experts - least + 1));
    std::vector<double> loads;
    for (int32_t e = 0; e < experts; ++e) loads.push_back(std::exp(2.5 * random.Normal()));
    for (const ReplicaRule rule : {ReplicaRule::kHighestPerSlot, ReplicaRule::kHottestTwice}) {
      const Placement plan = ComponentPlan(loads, slots, ranks, rule);
      ValidatePlacement(plan, "plan");
      EXPECT_EQ(CountDuplicateSlots(plan), 0) << experts << ' ' << slots << ' ' << ranks;
    }
  }
}

}  // namespace
}  // namespace wideload::eplb
