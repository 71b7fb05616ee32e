#include "eplb_even_gain.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "base/log.h"
#include "eplb/policies/policy.h"
#include "eplb/replay/placement_figures.h"
#include "eplb_halves.h"

namespace wideload::apps {
namespace {

constexpr int32_t kMaxLayers = 8;
constexpr int32_t kFewestBatches = 4;
constexpr double kLeastGain = 0.05;  // of the default policy's imbalance

}  // namespace

void TellEvenGain(const RecordedLoads& recorded, const eplb::Sizes& sizes, uint64_t seed) {
  const std::vector<int32_t> layers = SampledLayers(recorded, kMaxLayers);
  std::vector<Halves> halves;
  for (const int32_t layer : layers) {
    halves.push_back(SplitInHalves(recorded.layers.at(layer), Order::kInTime));
  }
  if (halves.empty()) return;
  const auto is_short = [](const Halves& half) {
    return half.recorded.size() < kFewestBatches / 2;
  };
  if (!recorded.has_batches || std::any_of(halves.begin(), halves.end(), is_short))
    return LogInfo(
        "what --policy {} would gain on iterations that it has not seen takes {} recorded "
        "iterations or more to tell, and a dozen to be much",
        eplb::EvenPolicy().name, kFewestBatches);
  std::vector<double> greedy(layers.size());
  std::vector<double> even(layers.size());
  ForEachLayer(layers.size(), [&](size_t l) {
    const auto imbalance = [&](const eplb::Policy& policy) {
      const eplb::Placement placement = eplb::PlanLayer(policy, {.loads = halves[l].recorded,
                                                                 .num_slots = sizes.num_slots,
                                                                 .num_ranks = sizes.num_ranks,
                                                                 .seed = seed});
      return eplb::JudgePlacement(placement, halves[l].measured).imbalance_even;
    };
    greedy[l] = imbalance(eplb::GreedyPolicy());
    even[l] = imbalance(eplb::EvenPolicy());
  });
  const auto mean = [](const std::vector<double>& values) {
    return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
  };
  const bool gains = mean(even) <= (1 - kLeastGain) * mean(greedy);
  LogInfo(
      "--policy {} would leave an imbalance ratio of {:.3f} where this policy leaves {:.3f}, on "
      "the second half of the iterations, planned from the first ({} of {} layers){}",
      eplb::EvenPolicy().name, mean(even), mean(greedy), layers.size(), recorded.layers.size(),
      gains ? "" : ": no gain worth having");
}

}  // namespace wideload::apps
