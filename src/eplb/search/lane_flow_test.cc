#include "eplb/search/lane_flow.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "eplb/placement/random.h"
#include "eplb/search/component_plan.h"
#include "eplb/split/water_filling.h"
#include "eplb/testing.h"

namespace wideload::eplb {
namespace {

// Levelling stops when it comes forward slowly; what may be left then, of a rank's mean load.
constexpr double kLeftOver = 0.02;

std::vector<LaneKernels> UsableKernels() {
  std::vector<LaneKernels> usable = {BaselineLaneKernels()};
  if (__builtin_cpu_supports("avx2")) usable.push_back(Avx2LaneKernels());
  if (__builtin_cpu_supports("avx512f")) usable.push_back(Avx512LaneKernels());
  return usable;
}

std::vector<float> RandomFloats(size_t count, uint64_t seed) {
  Random random(seed);
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(random.Uniform());
  return values;
}

TEST(LaneKernels, GiveTheSameBitsOnEveryInstructionSet) {
  // Three experts on four ranks: two with two slots, one with three.
  const std::vector<int32_t> begin = {0, 2, 5, 7};
  const std::vector<int32_t> slot = {0, 16, 32, 48, 64, 80, 96};
  const std::vector<int32_t> rank = {0, 16, 0, 32, 48, 16, 32};
  const std::vector<float> speed = {1, 1, 1, 0.5F, 1, 1, 0.5F};
  const std::vector<float> inverse = {1, 1, 1, 2, 1, 1, 2};
  const std::vector<float> pair_factor = {0.5F, 0, 1 / 3.0F};
  const LaneExperts experts = {
      begin.data(), slot.data(), rank.data(), speed.data(), inverse.data(), pair_factor.data(), 3};
  const std::vector<float> rows = RandomFloats(size_t{6} * kLanes, 1);
  const std::vector<float> load = RandomFloats(size_t{2} * kLanes, 2);
  const std::vector<float> sign = {1, 0, -1};
  const LaneCuts cuts = {rows.data(), {sign.data(), sign.data()}, {load.data(), load.data()}, 3,
                         2 * kLanes,  int64_t{3} * kLanes};
  const LaneCosts costs = {load.data(), 3};
  std::vector<std::vector<float>> results;
  for (const LaneKernels& kernels : UsableKernels()) {
    std::vector<float> heights = RandomFloats(size_t{4} * kLanes, 3);
    std::vector<float> tokens = RandomFloats(size_t{7} * kLanes, 4);
    for (int sweep = 0; sweep < 10; ++sweep) kernels.level(experts, heights.data(), tokens.data());
    std::vector<float> bounds(size_t{2} * kLanes, 1.0F);
    std::vector<float> sums = {kernels.raise_bounds(cuts, costs, bounds.data())};
    sums.push_back(kernels.cost_above(bounds.data(), rows.data(), costs));
    kernels.add_scaled(load.data(), 0.3F, 2 * kLanes, bounds.data(), kLanes);
    std::vector<float> all(kLanes);
    kernels.highest(heights.data(), 4, all.data());
    for (const auto* part : {&heights, &tokens, &bounds, &sums})
      all.insert(all.end(), part->begin(), part->end());
    results.push_back(all);
  }
  for (const std::vector<float>& result : results) EXPECT_EQ(result, results.front());
}

// Upper bound, exact optimum and lower bound of every scenario's busiest rank, kept split.
void ExpectBracket(LaneFlow& flow, const Placement& placement, const BatchLoads& scenarios,
                   const std::vector<double>& speed, const std::string& where) {
  WaterFilling split(placement, {speed, 0});
  for (int32_t k = 0; k < scenarios.size(); ++k) {
    split.Solve(scenarios.At(k));
    const double exact = 1 + split.imbalance();
    RankMask cut((speed.size() + 63) / 64);
    EXPECT_LE(flow.FindCut(k, false, cut), exact + kFloatRounding) << where;
    const auto upper = static_cast<double>(flow.levels()[static_cast<size_t>(k)]);
    EXPECT_GE(upper, exact - kFloatRounding) << where;
    EXPECT_LE(upper, exact + kLeftOver) << where;
  }
}

TEST(LaneFlow, BracketsTheOptimumOfRandomPlacements) {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    Random random(seed);
    const int32_t ranks = 2 + random.Below(9);
    const int32_t slots = ranks * (2 + random.Below(5));
    const int32_t experts = 1 + random.Below(slots);
    const Placement placement = RandomPlacement(experts, slots, ranks, seed);
    const BatchLoads scenarios = RandomBatches(experts, 20, seed);
    const std::vector<double> speed(static_cast<size_t>(ranks), 1.0);
    const ScenarioLanes lanes(scenarios, ranks);
    LaneFlow flow(lanes, speed);
    flow.Reset(placement);
    ExpectBracket(flow, placement, scenarios, speed, "seed " + std::to_string(seed));
  }
}

constexpr size_t kDeadRank = 4;

bool Holds(const Placement& placement, ExpertId expert, size_t rank) {
  const auto begin = placement.slot_expert.begin() + static_cast<std::ptrdiff_t>(rank * 5);
  return std::find(begin, begin + 5, expert) != begin + 5;
}

int LiveSlots(const Placement& placement, ExpertId expert) {
  int live = 0;
  for (size_t s = 0; s < placement.slot_expert.size(); ++s)
    live += s / 5 != kDeadRank && placement.slot_expert[s] == expert;
  return live;
}

TEST(LaneFlow, FollowsSwapsAndReplacements) {
  const std::vector<double> speed = {1, 1, 0.5, 1, 0, 1, 1, 1};
  const BatchLoads scenarios = RandomBatches(24, 20, 7);
  Placement placement = ComponentPlan(scenarios.Mean(), 35, 7);
  placement.num_ranks = 8;
  placement.slot_expert.insert(placement.slot_expert.begin() + kDeadRank * 5, 5, ExpertId(0));
  const ScenarioLanes lanes(scenarios, 6.5);
  LaneFlow flow(lanes, speed);
  flow.Reset(placement);
  const std::vector<float> lower(static_cast<size_t>(lanes.num_lanes()), 1.0F);
  Random random(3);
  for (int step = 0; step < 60; ++step) {
    const auto a = static_cast<size_t>(random.Below(40));
    const auto b = static_cast<size_t>(random.Below(40));
    if (a / 5 == kDeadRank || b / 5 == kDeadRank || a / 5 == b / 5) continue;
    const ExpertId at_a = placement.slot_expert[a];
    const ExpertId at_b = placement.slot_expert[b];
    SlotChange change = {1, {static_cast<int32_t>(a), -1}, {at_b.value, -1}, {at_a.value, -1}};
    if (step % 2 == 0)
      change = {2,
                {static_cast<int32_t>(a), static_cast<int32_t>(b)},
                {at_b.value, at_a.value},
                {at_a.value, at_b.value}};
    Placement after = placement;
    after.slot_expert[a] = at_b;
    if (change.num_slots == 2) after.slot_expert[b] = at_a;
    if (Holds(placement, at_b, a / 5) || Holds(placement, at_a, b / 5)) continue;
    if (change.num_slots == 1 && LiveSlots(placement, at_a) < 2) continue;
    flow.Try(after, change, lower, 1e9);
    if (step % 5 == 0) continue;  // dropped
    flow.Keep();
    placement = after;
    ExpectBracket(flow, placement, scenarios, speed, "step " + std::to_string(step));
  }
}

}  // namespace
}  // namespace wideload::eplb
