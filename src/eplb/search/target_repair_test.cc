#include "eplb/search/target_repair.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <optional>

#include "eplb/placement/even_split.h"
#include "eplb/placement/index.h"
#include "eplb/placement/random.h"
#include "eplb/search/capped_flow.h"
#include "eplb/search/component_plan.h"
#include "eplb/search/repair.h"
#include "eplb/split/max_flow.h"
#include "eplb/split/water_filling.h"
#include "eplb/testing.h"

namespace wideload::eplb {
namespace {

// Tokens that no split can put below the capacities, by maximum flow.
int64_t Unplaceable(const Placement& placement, std::span<const int64_t> load,
                    std::span<const int64_t> capacity) {
  const int32_t source = placement.num_experts + placement.num_ranks;
  MaxFlow flow(source + 2);
  const int64_t sum = std::accumulate(load.begin(), load.end(), int64_t{0});
  for (int32_t e = 0; e < placement.num_experts; ++e) flow.AddArc(source, e, load[Index(e)]);
  for (int32_t s = 0; s < placement.num_slots(); ++s)
    flow.AddArc(placement.slot_expert[Index(s)].value,
                placement.num_experts + placement.RankOf(SlotId(s)).value, sum);
  for (int32_t r = 0; r < placement.num_ranks; ++r)
    flow.AddArc(placement.num_experts + r, source + 1, capacity[Index(r)]);
  return sum - flow.Solve(source, source + 1);
}

TEST(CappedFlow, LeavesAboveCapacityOnlyWhatNoSplitCanPlace) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    Random random(seed);
    const int32_t ranks = 2 + random.Below(6);
    const int32_t slots = ranks * (2 + random.Below(4));
    const Placement placement = RandomPlacement(1 + random.Below(slots), slots, ranks, seed);
    const std::vector<double> alive(Index(ranks), 1.0);
    HostSlots hosts;
    hosts.Find(placement, alive);
    std::vector<int64_t> load, whole_capacity;
    BatchSplit split{std::vector<double>(Index(slots)), std::vector<double>(Index(ranks))};
    for (int32_t e = 0; e < placement.num_experts; ++e) {
      load.push_back(random.Below(40));
      const int32_t slot = hosts.Of(e).front();
      split.tokens[Index(slot)] = static_cast<double>(load.back());
      split.rank_load[Index(placement.RankOf(SlotId(slot)).value)] += split.tokens[Index(slot)];
    }
    std::vector<double> capacity;
    for (int32_t r = 0; r < ranks; ++r) {
      whole_capacity.push_back(random.Below(60));
      capacity.push_back(static_cast<double>(whole_capacity.back()));
    }
    CappedFlow flow(capacity);
    EXPECT_NEAR(flow.Fit(placement, hosts, split),
                static_cast<double>(Unplaceable(placement, load, whole_capacity)), 1e-6)
        << "seed " << seed;
    for (int32_t e = 0; e < placement.num_experts; ++e) {
      double sum = 0;
      for (const int32_t s : hosts.Of(e)) sum += split.tokens[Index(s)];
      EXPECT_NEAR(sum, static_cast<double>(load[Index(e)]), 1e-6) << "seed " << seed;
    }
  }
}

// Whether some placement with at most `fetches` slots changed is under the target.
bool Reachable(Placement& placement, const BatchLoads& scenarios, double until, int32_t fetches,
               int32_t first_slot = 0) {
  std::vector<bool> placed(Index(placement.num_experts), false);
  for (const ExpertId expert : placement.slot_expert) placed[Index(expert.value)] = true;
  if (std::find(placed.begin(), placed.end(), false) == placed.end() &&
      MeanOptimalImbalance(placement, scenarios) <= until)
    return true;
  if (fetches == 0) return false;
  for (int32_t s = first_slot; s < placement.num_slots(); ++s) {
    const ExpertId held = placement.slot_expert[Index(s)];
    for (int32_t e = 0; e < placement.num_experts; ++e) {
      if (e == held.value) continue;
      placement.slot_expert[Index(s)] = ExpertId(e);
      const bool found = Reachable(placement, scenarios, until, fetches - 1, s + 1);
      placement.slot_expert[Index(s)] = held;
      if (found) return true;
    }
  }
  return false;
}

TEST(RepairToTarget, NeedsNoMoreFetchesThanAnyPlacement) {
  int repaired = 0;
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    Placement start = ComponentPlan(RandomBatches(6, 1, seed).Mean(), 9, 3);
    const BatchLoads drifted = RandomBatches(6, 1, seed + 100);
    int32_t fewest = 0;
    while (fewest <= 2 && !Reachable(start, drifted, 0.05, fewest)) ++fewest;
    const auto found = RepairToTarget(start, drifted, {0.05, 9, {1, 1, 1}});
    if (fewest > 2) continue;
    if (!found) {
      ADD_FAILURE() << "seed " << seed;
      continue;
    }
    EXPECT_EQ(CountFetchedSlots(start, *found), fewest) << "seed " << seed;
    EXPECT_LE(MeanOptimalImbalance(*found, drifted), 0.05) << "seed " << seed;
    repaired += fewest > 0;
  }
  EXPECT_GE(repaired, 10);
}

TEST(RepairToTarget, KeepsToItsLimitAndLeavesDeadRanksAlone) {
  int repaired = 0;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    const Placement start = ComponentPlan(RandomBatches(32, 1, seed).Mean(), 48, 8);
    const BatchLoads drifted = RandomBatches(32, 3, seed + 100);
    const std::vector<double> speed = {1, 1, 1, 1, 1, 1, 1, 0.5};
    EXPECT_FALSE(RepairToTarget(start, drifted, {1e-3, 0, speed}));
    const auto found = RepairToTarget(start, drifted, {0.03, 30, speed});
    if (!found) continue;
    ++repaired;
    ValidatePlacement(*found, "repaired");
    EXPECT_LE(MeanOptimalImbalance(*found, drifted, speed), 0.03);
    const int32_t fetched = CountFetchedSlots(start, *found);
    EXPECT_GT(fetched, 0);
    EXPECT_FALSE(RepairToTarget(start, drifted, {0.03, fetched - 1, speed}));
  }
  EXPECT_GE(repaired, 15);
  Placement start = ComponentPlan(RandomBatches(8, 1, 1).Mean(), 20, 4);
  for (int32_t s = 0; s < 5; ++s) start.slot_expert[Index(s)] = start.slot_expert[Index(s + 5)];
  const BatchLoads drifted = RandomBatches(8, 1, 9);
  const Placement found =
      RepairToTarget(start, drifted, {0.02, 20, {0, 1, 1, 1}}).value_or(Placement{});
  ASSERT_EQ(found.num_slots(), start.num_slots());
  for (int32_t s = 0; s < 5; ++s)
    EXPECT_EQ(found.slot_expert[Index(s)], start.slot_expert[Index(s)]);
}

TEST(RepairPlacement, ComesUnderItsTargetWithNoMoreFetchesThanTheSearchForIt) {
  int repaired = 0;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    const Placement start = ComponentPlan(RandomBatches(32, 1, seed).Mean(), 48, 8);
    const BatchLoads drifted = RandomBatches(32, 1, seed + 100);
    const RepairResult result =
        RepairPlacement(start, drifted, {.max_fetched_slots = 48, .until = 0.02});
    const auto found = RepairToTarget(start, drifted, {0.02, 48, std::vector<double>(8, 1.0)});
    if (!found) continue;
    ++repaired;
    EXPECT_LE(result.imbalance_after, 0.02) << "seed " << seed;
    EXPECT_LE(result.fetched_slots, CountFetchedSlots(start, *found)) << "seed " << seed;
    EXPECT_EQ(result.fetched_slots, CountFetchedSlots(start, result.placement)) << "seed " << seed;
  }
  EXPECT_GE(repaired, 15);
}

}  // namespace
}  // namespace wideload::eplb
