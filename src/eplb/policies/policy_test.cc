#include "eplb/policies/policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "base/error.h"
#include "eplb/placement/even_split.h"
#include "eplb/testing.h"

namespace wideload::eplb {
namespace {

BatchLoads OneBatch(const std::vector<double>& load) {
  BatchLoads loads{static_cast<int32_t>(load.size())};
  loads.Add(load);
  return loads;
}

TEST(Policies, GiveAValidPlacementOfTheSizesAskedFor) {
  const BatchLoads loads = OneBatch({5, 0, 3, 1, 9, 2});
  for (const Policy& policy : Policies()) {
    const Placement placement =
        PlanLayer(policy, {.loads = loads,
                           .num_slots = 8,
                           .num_ranks = 4,
                           .nodes = {.num_nodes = policy.looks_at_nodes ? 2 : 1}});
    ValidatePlacement(placement, std::string(policy.name));
    EXPECT_EQ(placement.num_slots(), 8) << policy.name;
    EXPECT_EQ(placement.num_ranks, 4) << policy.name;
  }
}

TEST(Policies, SpreadSpareSlotsWithoutLoad) {
  for (const Policy& policy : Policies()) {
    for (const BatchLoads& loads : {OneBatch(std::vector<double>(6, 0)), BatchLoads{6}}) {
      const Placement placement =
          PlanLayer(policy, {.loads = loads, .num_slots = 8, .num_ranks = 4});
      const RoutingTable table = MakeRoutingTable(placement);
      for (int32_t e = 0; e < 6; ++e)
        EXPECT_LE(table.SlotsOf(ExpertId(e)).size(), 2u) << policy.name << " expert " << e;
    }
  }
}

TEST(Policies, CountTokensOfNoBatch) {
  BatchLoads loads = OneBatch({9, 1, 1, 1});
  loads.unbatched = {0, 20, 0, 0};
  const Placement placement =
      PlanLayer(GreedyPolicy(), {.loads = loads, .num_slots = 5, .num_ranks = 5});
  EXPECT_EQ(MakeRoutingTable(placement).SlotsOf(ExpertId(1)).size(), 2u);
}

TEST(Policies, KeepTheRanksInUseWhereTheyAreToldThem) {
  const BatchLoads loads = OneBatch({5, 4, 3, 1, 9, 2, 7, 8});
  for (const Policy& policy : Policies()) {
    const Placement plan = PlanLayer(policy, {.loads = loads, .num_slots = 12, .num_ranks = 4});
    Placement current = plan;
    std::rotate(current.slot_expert.begin(), current.slot_expert.begin() + 3,
                current.slot_expert.end());
    EXPECT_EQ(
        PlanLayer(policy, {.loads = loads, .num_slots = 12, .num_ranks = 4, .current = &current}),
        current)
        << policy.name;
  }
}

TEST(Policies, MoveNothingButWhatTheyFetchForAPrice) {
  const BatchLoads loads = RandomBatches(32, 6, 101);
  const BatchLoads before = RandomBatches(32, 6, 1);
  for (const Policy& policy : Policies()) {
    if (!policy.weighs_fetches) continue;
    const Placement now = PlanLayer(policy, {.loads = before, .num_slots = 40, .num_ranks = 8});
    const Placement plan = PlanLayer(
        policy,
        {.loads = loads, .num_slots = 40, .num_ranks = 8, .current = &now, .fetch_price = 0.01});
    EXPECT_EQ(CountChangedSlots(now, plan), CountFetchedSlots(now, plan)) << policy.name;
  }
}

TEST(PolicyNames, ListsThoseWithAProperty) {
  EXPECT_THAT(PolicyNames(&Policy::looks_at_nodes), ::testing::Contains("deepseek"));
  EXPECT_THAT(PolicyNames(&Policy::weighs_fetches),
              ::testing::Not(::testing::Contains("tensorrt_llm")));
  EXPECT_EQ(GreedyPolicy().name, "tensorrt_llm");
}

TEST(FindPolicy, RefusesAnUnknownNameWithTheList) {
  EXPECT_EQ(FindPolicy("deepseek").name, "deepseek");
  try {
    FindPolicy("best");
    FAIL();
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), ::testing::HasSubstr("allowed: contiguous, tensorrt_llm, deepseek"));
  }
}

}  // namespace
}  // namespace wideload::eplb
