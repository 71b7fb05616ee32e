#include "eplb/search/scenario_store.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "eplb/testing.h"

namespace wideload::eplb {
namespace {

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
  EXPECT_NEAR(store.Drift(placement, 0.25, 2), -0.25, kSumRounding);
  store.Add(std::vector<double>{80, 20, 20});  // 80 against a mean of 60
  EXPECT_NEAR(store.Drift(placement, 0.25, 2), (1.0 / 3) / 1.5 - 0.25, kSumRounding);
  EXPECT_NEAR(store.Drift(placement, 0, 1), 1.0 / 3, kSumRounding);
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

}  // namespace
}  // namespace wideload::eplb
