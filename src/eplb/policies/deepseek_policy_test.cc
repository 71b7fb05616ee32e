#include "eplb/policies/deepseek_policy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <numeric>
#include <random>
#include <set>

#include "base/error.h"
#include "base/json.h"

namespace wideload::eplb {
namespace {

using Floats = std::vector<float>;
using Ints = std::vector<int32_t>;

// The example of the published function's documentation: 12 experts in 4 groups, 2 nodes.
TEST(DeepSeekRebalance, GivesThePublishedExample) {
  const DeepSeekSizes sizes{.num_slots = 16, .num_groups = 4, .num_nodes = 2, .num_ranks = 8};
  const DeepSeekPlan first =
      DeepSeekRebalance(Floats{90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86}, sizes);
  EXPECT_EQ(first.slot_expert, (Ints{5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1}));
  EXPECT_EQ(first.replicas, (Ints{1, 2, 1, 1, 2, 2, 1, 1, 1, 1, 2, 1}));
  EXPECT_EQ(DeepSeekRebalance(Floats{20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27}, sizes)
                .slot_expert,
            (Ints{7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1}));
}

// Plans by a second implementation, tools/deepseek_golden.py.
TEST(DeepSeekRebalance, GivesTheGoldenPlans) {
  const Json cases = ReadJsonFile(std::string(std::getenv("WIDELOAD_SOURCE_DIR")) +
                                  "/testdata/eplb/deepseek_golden.json");
  ASSERT_EQ(cases.size(), 8u);
  for (const Json& golden : cases) {
    const auto loads = golden["loads"].get<Floats>();
    const DeepSeekPlan plan = DeepSeekRebalance(loads, {.num_slots = golden["num_slots"],
                                                        .num_groups = golden["num_groups"],
                                                        .num_nodes = golden["num_nodes"],
                                                        .num_ranks = golden["num_ranks"]});
    EXPECT_EQ(plan.slot_expert, golden["slot_expert"].get<Ints>()) << loads.size();
    EXPECT_EQ(plan.replicas, golden["replicas"].get<Ints>()) << loads.size();
  }
}

TEST(DeepSeekRebalance, NumbersTheReplicasAndKeepsThemOnOneNode) {
  std::mt19937 random(3);
  Floats loads(24);
  for (float& load : loads) load = static_cast<float>(random() % 1000);
  const DeepSeekPlan plan =
      DeepSeekRebalance(loads, {.num_slots = 40, .num_groups = 8, .num_nodes = 4, .num_ranks = 8});
  for (int32_t e = 0; e < std::ssize(loads); ++e) {
    Ints numbers;
    std::set<int32_t> nodes;
    for (int32_t slot = 0; slot < 40; ++slot) {
      if (plan.slot_expert[static_cast<size_t>(slot)] != e) continue;
      numbers.push_back(plan.slot_replica[static_cast<size_t>(slot)]);
      nodes.insert(slot / 10);
    }
    std::sort(numbers.begin(), numbers.end());
    Ints expected(static_cast<size_t>(plan.replicas[static_cast<size_t>(e)]));
    std::iota(expected.begin(), expected.end(), 0);
    EXPECT_EQ(numbers, expected) << e;
    EXPECT_EQ(nodes.size(), 1u) << e;
  }
}

TEST(DeepSeekRebalance, PlansGloballyWhenGroupsDoNotFitTheNodes) {
  const Floats loads = {9, 1, 8, 2, 7, 3};
  const DeepSeekPlan plan =
      DeepSeekRebalance(loads, {.num_slots = 8, .num_groups = 3, .num_nodes = 2, .num_ranks = 4});
  EXPECT_EQ(plan.slot_expert,
            DeepSeekRebalance(loads, {.num_slots = 8, .num_ranks = 4}).slot_expert);
  EXPECT_EQ(plan.replicas, (Ints{2, 1, 2, 1, 1, 1}));
}

TEST(DeepSeekRebalance, GivesTiesToTheLowestExpertAndRank) {
  const DeepSeekPlan plan = DeepSeekRebalance(Floats{1, 1, 1, 1}, {.num_slots = 6, .num_ranks = 2});
  EXPECT_EQ(plan.replicas, (Ints{2, 2, 1, 1}));
  // Whole loads 2, 3 first, then the halves in the order they were made, always to the first rank.
  EXPECT_EQ(plan.slot_expert, (Ints{2, 0, 0, 3, 1, 1}));
}

TEST(DeepSeekRebalance, RefusesSizesThatDoNotDivide) {
  const Floats loads(8, 1);
  const auto refuses = [&](const DeepSeekSizes& sizes) {
    EXPECT_THROW(DeepSeekRebalance(loads, sizes), Error);
  };
  refuses({.num_slots = 7, .num_ranks = 1});
  refuses({.num_slots = 9, .num_ranks = 2});
  refuses({.num_slots = 8, .num_groups = 3, .num_nodes = 1, .num_ranks = 2});
  refuses({.num_slots = 12, .num_groups = 4, .num_nodes = 2, .num_ranks = 3});
  refuses({.num_slots = 8, .num_groups = 4, .num_nodes = 0, .num_ranks = 2});
  EXPECT_THROW(DeepSeekRebalance(Floats{1, NAN}, {.num_slots = 2}), Error);
  EXPECT_THROW(DeepSeekRebalance(Floats{1, -1}, {.num_slots = 2}), Error);
}

}  // namespace
}  // namespace wideload::eplb
