#include "eplb/policies/tensorrt_llm_policy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "base/error.h"

namespace wideload::eplb {
namespace {

using Ints = std::vector<int32_t>;

Ints Experts(const Placement& placement) {
  Ints ids;
  for (const ExpertId expert : placement.slot_expert) ids.push_back(expert.value);
  return ids;
}

TEST(TensorRtLlmReplicaCounts, GivesSpareSlotsToTheHottestExpert) {
  EXPECT_EQ(TensorRtLlmReplicaCounts(std::vector<float>{1, 2, 3, 4}, 4), (Ints{1, 1, 1, 1}));
  EXPECT_EQ(TensorRtLlmReplicaCounts(std::vector<float>{1, 4, 2, 1}, 8), (Ints{1, 4, 2, 1}));
  EXPECT_EQ(TensorRtLlmReplicaCounts(std::vector<float>{10, 5, 2, 15, 8}, 9),
            (Ints{2, 1, 1, 3, 2}));
  EXPECT_EQ(TensorRtLlmReplicaCounts(std::vector<float>{0, 10, 0}, 4), (Ints{1, 2, 1}));
}

TEST(TensorRtLlmReplicaCounts, DealsSlotsEvenlyWithoutLoad) {
  EXPECT_EQ(TensorRtLlmReplicaCounts(std::vector<float>{0, 0, 0, 0}, 6), (Ints{2, 2, 1, 1}));
}

TEST(TensorRtLlmReplicaCounts, GivesTiesToTheHighestExpert) {
  EXPECT_EQ(TensorRtLlmReplicaCounts(std::vector<float>{5, 5, 5}, 4), (Ints{1, 1, 2}));
}

// Figures worked out by hand from the published rule.
TEST(TensorRtLlmPlacement, MatchesGoldenVectors) {
  EXPECT_EQ(Experts(TensorRtLlmPlacement(std::vector<float>{1, 3, 2, 1}, Ints{1, 2, 2, 1}, 2)),
            (Ints{1, 0, 2, 1, 2, 3}));
  EXPECT_EQ(Experts(TensorRtLlmPlacement(std::vector<float>{10, 5, 2, 15, 8}, 9, 3)),
            (Ints{0, 3, 4, 0, 3, 4, 1, 3, 2}));
  EXPECT_EQ(Experts(TensorRtLlmPlacement(std::vector<float>{1, 100, 10}, 4, 2)),
            (Ints{1, 2, 1, 0}));
  EXPECT_EQ(Experts(TensorRtLlmPlacement(std::vector<float>{2, 3, 4, 5, 6, 7}, 6, 2)),
            (Ints{5, 2, 1, 4, 3, 0}));
  EXPECT_EQ(Experts(TensorRtLlmPlacement(std::vector<float>{0, 0, 0, 0}, 6, 2)),
            (Ints{0, 0, 1, 1, 2, 3}));
}

TEST(TensorRtLlmPlacement, EqualsThePlainRule) {
  std::mt19937 random(7);
  for (int run = 0; run < 200; ++run) {
    const auto num_experts = static_cast<int32_t>(1 + random() % 20);
    const auto num_ranks = static_cast<int32_t>(1 + random() % 6);
    const int32_t num_slots =
        (num_experts + num_ranks - 1 + static_cast<int32_t>(random() % 12)) / num_ranks * num_ranks;
    if (num_slots < num_experts) continue;
    std::vector<float> loads(static_cast<size_t>(num_experts));
    for (float& load : loads) load = static_cast<float>(random() % 6);  // many ties
    const Ints replicas = TensorRtLlmReplicaCounts(loads, num_slots);

    std::vector<std::pair<double, int32_t>>
        items;  // (-load, expert): ascending is the rule's order
    for (int32_t e = 0; e < num_experts; ++e)
      for (int32_t i = 0; i < replicas[static_cast<size_t>(e)]; ++i)
        items.emplace_back(
            -double{loads[static_cast<size_t>(e)]} / replicas[static_cast<size_t>(e)], e);
    std::sort(items.begin(), items.end());
    std::vector<double> rank_load(static_cast<size_t>(num_ranks), 0);
    std::vector<Ints> on_rank(static_cast<size_t>(num_ranks));
    for (const auto& [negative_load, expert] : items) {
      size_t best = rank_load.size();
      for (size_t r = 0; r < rank_load.size(); ++r)
        if (static_cast<int32_t>(on_rank[r].size()) < num_slots / num_ranks &&
            (best == rank_load.size() || rank_load[r] < rank_load[best]))
          best = r;
      on_rank[best].push_back(expert);
      rank_load[best] -= negative_load;
    }
    Ints expected;
    for (const Ints& rank : on_rank) expected.insert(expected.end(), rank.begin(), rank.end());
    EXPECT_EQ(Experts(TensorRtLlmPlacement(loads, num_slots, num_ranks)), expected);
  }
}

TEST(TensorRtLlmPlacement, RefusesBadLoadsAndSizes) {
  EXPECT_THROW(TensorRtLlmPlacement(std::vector<float>{1, -1}, 2, 1), Error);
  EXPECT_THROW(TensorRtLlmPlacement(std::vector<float>{1, NAN}, 2, 1), Error);
  EXPECT_THROW(TensorRtLlmPlacement(std::vector<float>{1, INFINITY}, 2, 1), Error);
  EXPECT_THROW(TensorRtLlmPlacement(std::vector<float>{1, 1}, 3, 2), Error);
  EXPECT_THROW(TensorRtLlmPlacement(std::vector<float>{1, 1, 1}, 2, 2), Error);
  EXPECT_THROW(TensorRtLlmPlacement(std::vector<float>{}, 2, 2), Error);
  EXPECT_THROW(TensorRtLlmPlacement(std::vector<float>{1, 1}, Ints{2, 0}, 2), Error);
}

}  // namespace
}  // namespace wideload::eplb
