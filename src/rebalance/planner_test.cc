// Loads are drawn with the seeds stated.
#include "rebalance/planner.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "eplb/placement/even_split.h"
#include "eplb/placement/random.h"
#include "eplb/policies/tensorrt_llm_policy.h"
#include "eplb/split/water_filling.h"
#include "rebalance/tensorrt_llm_planner.h"

namespace wideload::rebalance {
namespace {

constexpr int32_t kExperts = 32;
constexpr int32_t kRanks = 8;
constexpr int32_t kSlots = 40;
constexpr int32_t kLayers = 3;

std::vector<eplb::Placement> Start() {
  return std::vector<eplb::Placement>(kLayers, eplb::ContiguousPlacement(kExperts, kSlots, kRanks));
}

// One kind of text: experts of uneven popularity, each iteration drawn about it.
class Text {
 public:
  explicit Text(uint64_t seed) : random_(seed) {
    for (double& share : shares_) share = std::exp(0.8 * random_.Normal());
  }
  std::vector<int32_t> Draw() {
    std::vector<int32_t> counts;
    for (const double share : shares_) {
      const double mean = 60 * share;
      counts.push_back(
          static_cast<int32_t>(std::max(0.0, mean + std::sqrt(mean) * random_.Normal())));
    }
    return counts;
  }

 private:
  eplb::Random random_;
  std::vector<double> shares_ = std::vector<double>(size_t{kLayers} * kExperts);
};

double Imbalance(const std::vector<eplb::Placement>& placements, const std::vector<int32_t>& counts,
                 bool splits_evenly) {
  double sum = 0;
  for (size_t l = 0; l < placements.size(); ++l) {
    const auto begin = counts.begin() + static_cast<std::ptrdiff_t>(l * kExperts);
    const std::vector<double> loads(begin, begin + kExperts);
    if (splits_evenly) {
      sum += eplb::EvenSplitImbalance(placements[l], loads) / kLayers;
      continue;
    }
    eplb::WaterFilling split(placements[l]);
    split.Solve(loads);
    sum += split.imbalance() / kLayers;
  }
  return sum;
}

// Plans for `iterations` of the text; returns the imbalance after the last one, and the most slots
// fetched by one plan.
struct Outcome {
  double imbalance = 0;
  int32_t most_fetched = 0;
  int32_t num_plans = 0;
};
Outcome Serve(Planner& planner, Text& text, int iterations, std::vector<eplb::Placement>& now,
              bool splits_evenly = false) {
  Outcome outcome;
  for (int i = 0; i < iterations; ++i) {
    const std::vector<int32_t> counts = text.Draw();
    int32_t fetched = 0;
    for (const LayerChange& change : planner.Plan({i, false, counts})) {
      eplb::Placement& placement = now[static_cast<size_t>(change.moe_layer)];
      fetched += eplb::CountFetchedSlots(placement, change.placement);
      placement = change.placement;
    }
    outcome.num_plans += fetched > 0 ? 1 : 0;
    outcome.most_fetched = std::max(outcome.most_fetched, fetched);
  }
  outcome.imbalance = Imbalance(now, text.Draw(), splits_evenly);
  return outcome;
}

TEST(RepairPlanner, FollowsEachTextWithinItsBudget) {
  const OnlineOptions options{.mode = Mode::kRepair, .max_fetched_slots_per_iter = 5};
  std::vector<eplb::Placement> now = Start();
  const auto planner = MakePlanner(options, now);
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    Text text(seed);
    const double before = Imbalance(now, text.Draw(), false);
    const Outcome outcome = Serve(*planner, text, 12, now);
    EXPECT_GT(before, 0.2) << seed;
    EXPECT_LT(outcome.imbalance, 0.03) << seed;  // 1900 tokens a layer: chance leaves 0.01
    EXPECT_LE(outcome.most_fetched, 5) << seed;
  }
}

TEST(RepairPlanner, LeavesABalancedLoadAlone) {
  std::vector<eplb::Placement> now = Start();
  const auto planner = MakePlanner({.mode = Mode::kRepair}, now);
  Text text(5);
  Serve(*planner, text, 12, now);
  EXPECT_LE(Serve(*planner, text, 60, now).num_plans, 3);
}

// One slot per expert: no placement reaches the target, and what is left to gain is not worth it.
TEST(RepairPlanner, StopsWhereNothingIsGainedAnyMore) {
  std::vector<eplb::Placement> now(kLayers, eplb::ContiguousPlacement(kExperts, kExperts, kRanks));
  const auto planner = MakePlanner({.mode = Mode::kRepair}, now);
  Text text(6);
  const double before = Imbalance(now, text.Draw(), false);
  EXPECT_LT(Serve(*planner, text, 12, now).imbalance, before / 2);
  EXPECT_LE(Serve(*planner, text, 60, now).num_plans, 10);
}

// What is best for the optimal split is not for the even one.
// No load is as uneven as this threshold.
TEST(RepairPlanner, LooksAtEveryLayerWhenAsked) {
  const auto planner = MakePlanner({.mode = Mode::kRepair, .threshold = 100}, Start());
  Text text(7);
  const std::vector<int32_t> counts = text.Draw();
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(planner->Plan({i, false, counts}).empty());
  EXPECT_FALSE(planner->Plan({4, false, counts, true}).empty());
}

TEST(RepairPlanner, BalancesForTheEvenSplitWhereRanksSplitSo) {
  double imbalance[2];
  for (const bool splits_evenly : {false, true}) {
    std::vector<eplb::Placement> now = Start();
    const auto planner = MakePlanner({.mode = Mode::kRepair, .splits_evenly = splits_evenly}, now);
    Text text(8);
    const double before = Imbalance(now, text.Draw(), true);
    imbalance[splits_evenly ? 1 : 0] = Serve(*planner, text, 20, now, true).imbalance;
    EXPECT_LT(imbalance[splits_evenly ? 1 : 0], before) << splits_evenly;
    EXPECT_TRUE(!splits_evenly || Serve(*planner, text, 60, now).num_plans <= 10);
  }
  EXPECT_LT(imbalance[1], imbalance[0] / 2);
}

TEST(Planner, WarmupAndIterationsWithoutTokensPlanNothing) {
  for (const Mode mode : {Mode::kRepair, Mode::kTensorRtLlm}) {
    const auto planner = MakePlanner({.mode = mode}, Start());
    Text text(7);
    for (int i = 0; i < 5; ++i) {
      const std::vector<int32_t> counts = text.Draw();
      EXPECT_TRUE(planner->Plan({i, true, counts}).empty());
    }
  }
  const auto planner = MakePlanner({.mode = Mode::kRepair}, Start());
  const std::vector<int32_t> none(size_t{kLayers} * kExperts);
  EXPECT_TRUE(planner->Plan({0, false, none}).empty());
}

TEST(Planner, NamesTheOptionOutOfRange) {
  const auto refused = [](const OnlineOptions& options) {
    try {
      MakePlanner(options, Start());
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  EXPECT_NE(refused({.mode = Mode::kTensorRtLlm, .layer_updates_per_iter = 0})
                .find("layer_updates_per_iter is 0"),
            std::string::npos);
  EXPECT_NE(refused({.mode = Mode::kRepair, .max_fetched_slots_per_iter = 0})
                .find("max_fetched_slots_per_iter is 0"),
            std::string::npos);
  EXPECT_NE(refused({.mode = Mode::kRepair, .threshold = 0.1, .target = 0.2}).find("threshold"),
            std::string::npos);
}

using Groups = std::vector<std::vector<int32_t>>;

TEST(UpdateGroups, GoRoundAsTensorRtLlmDoes) {
  EXPECT_EQ(UpdateGroups(58, 1).size(), 59U);
  EXPECT_EQ(UpdateGroups(58, 2).size(), 30U);
  std::vector<size_t> sizes;
  for (const auto& group : UpdateGroups(61, 10)) sizes.push_back(group.size());
  EXPECT_EQ(sizes, (std::vector<size_t>{9, 9, 9, 9, 9, 8, 8}));
  EXPECT_EQ(UpdateGroups(6, 4), (Groups{{0, 2, 4}, {1, 3, 5}, {}}));
  EXPECT_EQ(UpdateGroups(3, 2), (Groups{{0, 2}, {1}}));
  EXPECT_EQ(UpdateGroups(5, 2), (Groups{{0, 3}, {1, 4}, {2}}));
}

// Layer 1 of 3 is placed at the second step, from the counts of both, and at the sixth from those
// after the second.
TEST(TensorRtLlmPlanner, PlansEveryLayerWhenAsked) {
  Text text(7);
  const std::vector<int32_t> counts = text.Draw();
  EXPECT_EQ(TensorRtLlmPlanner(1, Start()).Plan({0, false, counts}).size(), 1U);
  EXPECT_EQ(TensorRtLlmPlanner(1, Start()).Plan({0, false, counts, true}).size(), size_t{kLayers});
}

TEST(TensorRtLlmPlanner, PlansFromDecayedCountsSinceTheLayersLastStep) {
  TensorRtLlmPlanner planner(1, Start());
  Text text(9);
  std::vector<std::vector<int32_t>> counts;
  const auto expected = [&counts](size_t first, size_t last) {
    std::vector<float> loads(kExperts, 0.0F);
    for (size_t i = first; i <= last; ++i)
      for (size_t e = 0; e < loads.size(); ++e)
        loads[e] = 0.95F * loads[e] + static_cast<float>(counts[i][kExperts + e]);
    return eplb::TensorRtLlmPlacement(loads, kSlots, kRanks);
  };
  for (int64_t i = 0; i < 6; ++i) {
    counts.push_back(text.Draw());
    const auto changes = planner.Plan({i, false, counts.back()});
    if (i == 3) {
      EXPECT_TRUE(changes.empty());  // the empty group
    } else {
      ASSERT_EQ(changes.size(), 1U) << i;
      EXPECT_EQ(changes[0].moe_layer, i % 4) << i;
    }
    const bool is_layer_1 = i == 1 || i == 5;
    EXPECT_TRUE(!is_layer_1 || changes[0].placement == expected(i == 1 ? 0 : 2, counts.size() - 1));
  }
}

}  // namespace
}  // namespace wideload::rebalance
