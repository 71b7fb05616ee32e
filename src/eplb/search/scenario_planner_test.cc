#include "eplb/search/scenario_planner.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "base/error.h"
#include "eplb/placement/even_split.h"
#include "eplb/policies/tensorrt_llm_policy.h"
#include "eplb/search/component_plan.h"
#include "eplb/split/water_filling.h"
#include "eplb/testing.h"

namespace wideload::eplb {
namespace {

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
    EXPECT_EQ(CountDuplicateSlots(plan), 0);
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
      const double left = MeanOptimalImbalance(plan, drifted);
      EXPECT_TRUE(price == 0 || left <= MeanOptimalImbalance(now, drifted)) << left;
      EXPECT_EQ(plan == now, price == 1e9);
      fetched += CountFetchedSlots(now, plan);
      imbalance += MeanOptimalImbalance(plan, drifted);
    }
    if (price > 0) {
      EXPECT_LT(fetched, fetched_before) << price;
      EXPECT_GE(imbalance, imbalance_before - kSumRounding) << price;
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

}  // namespace
}  // namespace wideload::eplb
