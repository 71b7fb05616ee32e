#include "eplb/policies/even_policy.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/error.h"
#include "eplb/placement/even_split.h"
#include "eplb/policies/tensorrt_llm_policy.h"
#include "eplb/testing.h"

namespace wideload::eplb {
namespace {

double MeanEvenImbalance(const Placement& placement, const BatchLoads& batches) {
  double sum = 0;
  for (int32_t i = 0; i < batches.size(); ++i) sum += EvenSplitImbalance(placement, batches.At(i));
  return sum / batches.size();
}

// Two kinds of batches in turn, each with experts of its own that are hot together.
BatchLoads TwoTopics(int32_t count, uint64_t seed) {
  Random random(seed);
  BatchLoads loads{32};
  for (int32_t i = 0; i < count; ++i) {
    std::vector<double> load;
    for (int32_t e = 0; e < 32; ++e)
      load.push_back(std::floor((e % 2 == i % 2 ? 300 : 100) * std::exp(0.1 * random.Normal())));
    loads.Add(load);
  }
  return loads;
}

TEST(PlanForEvenSplit, PutsExpertsThatAreHotTogetherOnDifferentRanks) {
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    const BatchLoads recorded = TwoTopics(16, seed);
    const BatchLoads later = TwoTopics(16, seed + 100);
    for (const int32_t slots : {32, 40}) {
      const std::vector<double> sum = recorded.Sum();
      const Placement greedy =
          TensorRtLlmPlacement(std::vector<float>(sum.begin(), sum.end()), slots, 8);
      const Placement plan =
          PlanForEvenSplit(recorded, {.sizes = {slots, 8}, .seed = seed, .proposals = 20000});
      ValidatePlacement(plan, "plan");
      EXPECT_LT(MeanEvenImbalance(plan, later), 0.6 * MeanEvenImbalance(greedy, later)) << slots;
    }
  }
}

TEST(PlanForEvenSplit, KeepsGroupsOnTheirNodes) {
  const BatchLoads recorded = RandomBatches(32, 12, 5);
  for (const int32_t cross_slots : {0, 3}) {
    const Placement plan = PlanForEvenSplit(recorded, {.sizes = {40, 8},
                                                       .nodes = {.num_nodes = 2, .num_groups = 4},
                                                       .max_cross_slots = cross_slots,
                                                       .proposals = 20000});
    ValidatePlacement(plan, "plan");
    EXPECT_TRUE(RuleKeptBy(plan, {.num_nodes = 2, .num_groups = 4}, cross_slots));
  }
}

TEST(PlanForEvenSplit, FetchesLessTheDearerAFetchIs) {
  const BatchLoads before = RandomBatches(32, 12, 1);
  const BatchLoads drifted = RandomBatches(32, 12, 2);
  const Placement now = PlanForEvenSplit(before, {.sizes = {40, 8}, .proposals = 20000});
  int32_t fetched_before = 41;
  for (const double price : {1e-3, 0.02, 1e9}) {
    const Placement plan = PlanForEvenSplit(
        drifted, {.sizes = {40, 8}, .proposals = 20000, .current = &now, .fetch_price = price});
    const int32_t fetched = CountFetchedSlots(now, plan);
    EXPECT_LT(fetched, fetched_before) << price;
    EXPECT_EQ(fetched == 0, price == 1e9);
    fetched_before = fetched;
  }
}

TEST(PlanForEvenSplit, RefusesWhatItCannotPlanFor) {
  const BatchLoads recorded = RandomBatches(32, 2, 1);
  EXPECT_THROW(PlanForEvenSplit(recorded, {.sizes = {30, 8}}), Error);
  EXPECT_THROW(PlanForEvenSplit(BatchLoads{32}, {.sizes = {40, 8}}), Error);
  EXPECT_THROW(PlanForEvenSplit(recorded, {.sizes = {40, 8}, .fetch_price = 0.1}), Error);
  EXPECT_THROW(PlanForEvenSplit(recorded, {.sizes = {40, 8}, .nodes = {.num_nodes = 3}}), Error);
}

}  // namespace
}  // namespace wideload::eplb
