#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>

#include "base/error.h"
#include "eplb/placement/even_split.h"
#include "eplb/placement/keep_slots.h"
#include "eplb/placement/random.h"
#include "eplb/policies/tensorrt_llm_policy.h"
#include "eplb/replay/bounds.h"
#include "eplb/replay/simulate.h"
#include "eplb/search/component_plan.h"
#include "eplb/search/repair.h"
#include "eplb/search/scenario_planner.h"
#include "eplb/search/scenario_store.h"
#include "eplb/search/vary_batches.h"
#include "eplb/split/integer_split.h"
#include "eplb/split/shared_expert.h"
#include "eplb/split/split_graph.h"
#include "eplb/split/water_filling.h"
#include "eplb/testing.h"

namespace wideload::eplb {
namespace {

// The whole optimum may exceed the fractional one by the rounding of doubles only.
constexpr double kRounding = 1e-6;

bool HasDuplicateOnARank(const Placement& placement) {
  for (int32_t r = 0; r < placement.num_ranks; ++r) {
    const auto begin = placement.slot_expert.begin() + int64_t{r} * placement.slots_per_rank();
    std::vector<ExpertId> held(begin, begin + placement.slots_per_rank());
    std::sort(held.begin(), held.end());
    if (std::adjacent_find(held.begin(), held.end()) != held.end()) return true;
  }
  return false;
}

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
                static_cast<int64_t>(std::ceil(busiest - kRounding)))
          << "seed " << seed;
      const double sum =
          std::accumulate(split.slot_tokens().begin(), split.slot_tokens().end(), 0.0);
      ASSERT_NEAR(sum, std::accumulate(load.begin(), load.end(), 0.0), kRounding * (1 + sum));
    }
  }
}

TEST(WaterFilling, GivesASlowRankLessAndADeadRankNothing) {
  const Placement placement{
      2, 3, {ExpertId(0), ExpertId(1), ExpertId(0), ExpertId(1), ExpertId(0), ExpertId(1)}};
  WaterFilling split(placement, {{1.0, 0.5, 0.0}, 0});
  EXPECT_NEAR(split.Solve(std::vector<double>{60, 30}), 60, kRounding);
  EXPECT_NEAR(split.rank_tokens()[1], 30, kRounding);
  EXPECT_EQ(split.rank_tokens()[2], 0);
}

TEST(WaterFilling, LeavesASlotIdleWhenOpeningItCostsMoreThanItSaves) {
  const Placement placement{2, 2, {ExpertId(0), ExpertId(1), ExpertId(0), ExpertId(1)}};
  WaterFilling cheap(placement, {{}, 0});
  WaterFilling dear(placement, {{}, 100});
  EXPECT_NEAR(cheap.Solve(std::vector<double>{10, 8}), 9, kRounding);
  EXPECT_NEAR(dear.Solve(std::vector<double>{10, 8}), 110, kRounding);
}

TEST(ComponentPlan, JoinsRanksIntoAsFewComponentsAsSlotsAllow) {
  const BatchLoads scenarios = RandomBatches(64, 4, 7);
  for (const int32_t slots : {72, 80, 96, 64}) {
    for (const int32_t ranks : {8, 16}) {
      if (slots % ranks != 0) continue;
      const Placement plan = ComponentPlan(scenarios.Mean(), slots, ranks);
      ValidatePlacement(plan, "plan");
      EXPECT_FALSE(HasDuplicateOnARank(plan));
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
      EXPECT_FALSE(HasDuplicateOnARank(plan)) << experts << ' ' << slots << ' ' << ranks;
    }
  }
}

TEST(PlanPlacement, BeatsTheGreedyPolicyOnOtherBatchesOfTheSameKind) {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    const BatchLoads all = RandomBatches(32, 24, seed);
    BatchLoads recorded{32, {}, {}};
    BatchLoads measured{32, {}, {}};
    for (int32_t k = 0; k < all.size(); ++k) (k < 12 ? recorded : measured).Add(all.At(k));
    PlanOptions options;
    options.num_ranks = 8;
    options.num_slots = 40;
    options.max_moves = 3000;
    const Placement plan = PlanPlacement(recorded, options);
    ValidatePlacement(plan, "plan");
    EXPECT_FALSE(HasDuplicateOnARank(plan));
    EXPECT_EQ(plan, PlanPlacement(recorded, options));
    const std::vector<double> mean = recorded.Mean();
    const Placement greedy =
        TensorRtLlmPlacement(std::vector<float>(mean.begin(), mean.end()), 40, 8);
    EXPECT_LT(MeanOptimalImbalance(plan, measured), MeanOptimalImbalance(greedy, measured));
  }
}

TEST(PlanPlacement, FetchesLessTheDearerAFetchIs) {
  int32_t fetched_before = 0;
  double imbalance_before = 0;
  for (const double price : {0.0, 1e-3, 1e-2, 0.1, 1e9}) {
    int32_t fetched = 0;
    double imbalance = 0;
    for (uint64_t seed = 1; seed <= 5; ++seed) {
      const Placement now = ComponentPlan(RandomBatches(32, 1, seed).Mean(), 40, 8);
      const BatchLoads drifted = RandomBatches(32, 6, seed + 100);
      const PlanOptions options{.num_ranks = 8,
                                .num_slots = 40,
                                .seed = seed,
                                .max_moves = 3000,
                                .current = &now,
                                .fetch_price = price};
      const Placement plan = PlanPlacement(drifted, options);
      ValidatePlacement(plan, "plan");
      EXPECT_EQ(plan, PlanPlacement(drifted, options));
      if (price > 0) {
        EXPECT_EQ(CountChangedSlots(now, plan), CountFetchedSlots(now, plan));
        EXPECT_LE(MeanOptimalImbalance(plan, drifted), MeanOptimalImbalance(now, drifted));
      }
      EXPECT_EQ(plan == now, price == 1e9);
      fetched += CountFetchedSlots(now, plan);
      imbalance += MeanOptimalImbalance(plan, drifted);
    }
    if (price > 0) {
      EXPECT_LT(fetched, fetched_before) << price;
      EXPECT_GE(imbalance, imbalance_before - kRounding) << price;
    }
    fetched_before = fetched;
    imbalance_before = imbalance;
  }
}

TEST(PlanPlacement, RefusesAPriceWithoutThePlacementItIsPaidFrom) {
  const BatchLoads scenarios = RandomBatches(32, 2, 1);
  const Placement now = ComponentPlan(scenarios.Mean(), 40, 8);
  const Placement fewer = ComponentPlan(scenarios.Mean(), 32, 8);
  PlanOptions options{.num_ranks = 8, .num_slots = 40, .max_moves = 0, .current = &now};
  for (const double price : {-1.0, std::nan(""), std::numeric_limits<double>::infinity()}) {
    options.fetch_price = price;
    EXPECT_THROW(PlanPlacement(scenarios, options), Error) << price;
  }
  options.fetch_price = 0.1;
  EXPECT_NO_THROW(PlanPlacement(scenarios, options));
  for (const Placement* current : {static_cast<const Placement*>(nullptr), &fewer}) {
    options.current = current;
    EXPECT_THROW(PlanPlacement(scenarios, options), Error);
  }
}

TEST(RelabelRanks, FindsARenamedPlacementAgain) {
  const Placement plan = ComponentPlan(RandomBatches(32, 1, 3).Mean(), 40, 8);
  Placement renamed = plan;
  std::rotate(renamed.slot_expert.begin(), renamed.slot_expert.begin() + 15,
              renamed.slot_expert.end());
  EXPECT_GT(CountFetchedSlots(plan, renamed), 0);
  EXPECT_EQ(RelabelRanks(plan, renamed), plan);
}

TEST(VaryBatches, HasEveryRecordedOneOnceEvenlyBetweenItsVariations) {
  const BatchLoads recorded = RandomBatches(8, 5, 3);
  const BatchLoads varied = VaryBatches(recorded, 40, 0.2, 7);
  ASSERT_EQ(varied.size(), 40);
  int32_t found = 0;
  for (int32_t i = 0; i < varied.size(); ++i) {
    const std::span<const double> load = recorded.At(std::min(found, recorded.size() - 1));
    const double sum = std::accumulate(load.begin(), load.end(), 0.0);
    double distance = 0;
    for (size_t e = 0; e < load.size(); ++e) distance += std::abs(load[e] / sum - varied.At(i)[e]);
    found += distance < kRounding;
    EXPECT_EQ(found, (i + 1) / 8) << "scenario " << i;
  }
  EXPECT_EQ(VaryBatches(recorded, 3, 0.2, 7).size(), 3);
}

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
      EXPECT_NEAR(result.imbalance_before, MeanOptimalImbalance(now, drifted), kRounding);
      EXPECT_NEAR(result.imbalance_after, MeanOptimalImbalance(result.placement, drifted),
                  kRounding);
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

TEST(ScenarioStore, WeighsABatchByItsAge) {
  ScenarioStore store(1, {.capacity = 8, .decay = 0.5, .floor_weight = 0.1});
  for (const double tokens : {5.0, 6.0, 0.0, 7.0, 8.0}) store.Add(std::vector<double>{tokens});
  const BatchLoads kept = store.Get();  // the batch without tokens only aged the others
  EXPECT_EQ(kept.loads, (std::vector<double>{5, 6, 7, 8}));
  EXPECT_EQ(kept.weights, (std::vector<double>{0.1, 0.125, 0.5, 1}));
}

TEST(ScenarioStore, TellsDriftByTheOptimalSplitOfTheNewestBatches) {
  // Expert 2 has both ranks: what 0 and 1 differ by up to its tokens, the split evens out.
  const Placement placement{3, 2, {ExpertId(0), ExpertId(2), ExpertId(1), ExpertId(2)}};
  ScenarioStore store(3, {.capacity = 8, .decay = 0.5});
  EXPECT_EQ(store.Drift(placement, 0.25), 0);  // nothing was seen
  store.Add(std::vector<double>{90, 0, 10});   // 0.8: older than what is asked for
  store.Add(std::vector<double>{60, 40, 20});  // 0
  store.Add(std::vector<double>{40, 60, 20});  // 0
  EXPECT_NEAR(store.Drift(placement, 0.25, 2), -0.25, kRounding);
  store.Add(std::vector<double>{80, 20, 20});  // 80 against a mean of 60
  EXPECT_NEAR(store.Drift(placement, 0.25, 2), (1.0 / 3) / 1.5 - 0.25, kRounding);
  EXPECT_NEAR(store.Drift(placement, 0, 1), 1.0 / 3, kRounding);
}

TEST(ScenarioStore, KeepsTheNewestAndThinsOutTheOld) {
  ScenarioStore store(1, {.capacity = 8});
  for (int32_t i = 0; i < 200; ++i) store.Add(std::vector<double>{i + 1.0});
  const BatchLoads kept = store.Get();
  ASSERT_EQ(kept.size(), 8);
  EXPECT_EQ(kept.At(7)[0], 200);
  EXPECT_EQ(kept.At(6)[0], 199);
  EXPECT_LT(kept.At(0)[0], 190);
  EXPECT_GE(kept.At(0)[0], 200 - 8 * 8);
  EXPECT_TRUE(std::is_sorted(kept.weights.begin(), kept.weights.end()));
}

TEST(SplitSharedExpert, MovesNoRowThatDoesNotMakeItsRankTheBusiest) {
  // Rank 2 has little to do beside rank 0: its rows stay, though rank 1 is idle.
  EXPECT_EQ(SplitSharedExpert(std::vector<int64_t>{100, 0, 50}, std::vector<int32_t>{0, 0, 10})[8],
            10);
  Random random(11);
  for (int round = 0; round < 300; ++round) {
    const size_t ranks = 1 + static_cast<size_t>(random.Below(6));
    const double cost = std::array{1.0, 0.5, 3.0}[static_cast<size_t>(random.Below(3))];
    std::vector<int64_t> routed;
    std::vector<int32_t> tokens;
    for (size_t r = 0; r < ranks; ++r) {
      routed.push_back(random.Below(60));
      tokens.push_back(random.Below(30));
    }
    // One row after the other to the least busy rank: the least that whole rows allow.
    std::vector<double> least(routed.begin(), routed.end());
    for (int32_t i = std::accumulate(tokens.begin(), tokens.end(), 0); i > 0; --i)
      *std::min_element(least.begin(), least.end()) += cost;
    const double busiest = *std::max_element(least.begin(), least.end());
    const std::vector<int32_t> rows = SplitSharedExpert(routed, tokens, cost);
    for (size_t r = 0; r < ranks; ++r) {
      double busy = static_cast<double>(routed[r]);
      for (size_t from = 0; from < ranks; ++from) busy += cost * rows[from * ranks + r];
      EXPECT_LE(busy, busiest + kRounding);
      const auto room = std::floor((busiest - static_cast<double>(routed[r])) / cost + kRounding);
      EXPECT_EQ(rows[r * ranks + r], std::min(tokens[r], static_cast<int32_t>(room)));
    }
  }
}

TEST(SplitSharedExpert, FillsTheLeastBusyRanksAndStaysAtHomeOtherwise) {
  const std::vector<int64_t> routed = {100, 60, 80};
  const std::vector<int32_t> tokens = {20, 20, 20};
  const std::vector<int32_t> rows = SplitSharedExpert(routed, tokens);
  std::vector<int64_t> busy = routed;
  for (size_t from = 0; from < 3; ++from) {
    int32_t sum = 0;
    for (size_t to = 0; to < 3; ++to) {
      sum += rows[from * 3 + to];
      busy[to] += rows[from * 3 + to];
    }
    EXPECT_EQ(sum, 20);
  }
  EXPECT_EQ(*std::max_element(busy.begin(), busy.end()), 100);
  EXPECT_EQ(rows[4], 20);
  EXPECT_EQ(rows[8], 20);
}

TEST(ReplicaCapacityBound, IsTheHottestExpertWithoutSpareSlots) {
  EXPECT_NEAR(ReplicaCapacityBound(std::vector<double>{6, 1, 1}, {3, 3}), 6 / (8 / 3.0) - 1, 1e-6);
  EXPECT_EQ(ReplicaCapacityBound(std::vector<double>{1, 1}, {2, 2}), 0);
}

TEST(ValidateIterationRule, RefusesAStrideThatSkipsAnswers) {
  RoutingTrace trace{1, 1, 2, {{{1, 1, 1, 1}, {0, 1, 0, 1}}}};
  IterationRule rule;
  rule.tokens = 2;
  rule.answer_stride = 2;
  EXPECT_THROW(ValidateIterationRule(trace, rule), Error);
  rule.answer_stride = 3;
  EXPECT_NO_THROW(ValidateIterationRule(trace, rule));
  EXPECT_EQ(MakeLayerTrace(trace, rule, 0).measured.size(), 1u);
}

}  // namespace
}  // namespace wideload::eplb
