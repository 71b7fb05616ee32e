#include "rebalance/repair_planner.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <utility>

#include "eplb/placement/even_split.h"
#include "eplb/placement/random.h"
#include "eplb/search/repair.h"

namespace wideload::rebalance {
namespace {

// Iterations that a repair looks at; more of them are no more like the next one.
constexpr size_t kRecent = 8;
// Scenarios of a repair: recent iterations, and where these are fewer, as they might have come out.
constexpr size_t kScenarios = 16;
// How much more than chance the shares of the experts must have moved, mean over layers, to be
// another load: the total variation distance.
constexpr double kOtherLoad = 0.12;
// A layer that could not be repaired better is repaired again when it is so many times as bad.
constexpr double kWorse = 2;
// Repairs are worked out until they fetch so many times what one change may.
constexpr int32_t kChoice = 2;
constexpr double kRecencyDecay = 0.9;  // weight of an iteration relative to the next one

double Sum(std::span<const double> values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

// How far `newest` is from the mean of `recent`, less what chance makes of it.
double Distance(const std::vector<std::vector<double>>& recent, std::span<const double> newest) {
  std::vector<double> mean(newest.size(), 0.0);
  for (const std::vector<double>& counts : recent)
    for (size_t e = 0; e < mean.size(); ++e) mean[e] += counts[e];
  const double total = Sum(mean);
  const double newest_total = Sum(newest);
  if (total <= 0 || newest_total <= 0) return 0;
  double distance = 0;
  for (size_t e = 0; e < mean.size(); ++e) {
    const double share = mean[e] / total;
    const double variance = share * (1 - share) * (1 / total + 1 / newest_total);
    distance +=
        std::abs(newest[e] / newest_total - share) - std::sqrt(2 / std::numbers::pi * variance);
  }
  return distance / 2;
}

}  // namespace

RepairPlanner::RepairPlanner(const OnlineOptions& options, std::vector<eplb::Placement> start)
    : options_(options) {
  for (eplb::Placement& placement : start) Place(layers_.emplace_back(), std::move(placement));
}

void RepairPlanner::Place(Layer& layer, eplb::Placement placement) const {
  layer.now = std::move(placement);
  layer.split = std::make_unique<eplb::WaterFilling>(layer.now);
  layer.imbalances.clear();
}

void RepairPlanner::Take(const IterationCounts& counts) {
  const size_t experts = counts.routed_counts.size() / layers_.size();
  std::vector<std::vector<double>> newest(layers_.size());
  double distance = 0;
  for (size_t l = 0; l < layers_.size(); ++l) {
    const std::span<const int32_t> row = counts.routed_counts.subspan(l * experts, experts);
    newest[l].assign(row.begin(), row.end());
    distance += Distance(layers_[l].recent, newest[l]) / static_cast<double>(layers_.size());
  }
  for (size_t l = 0; l < layers_.size(); ++l) {
    std::vector<std::vector<double>>& recent = layers_[l].recent;
    std::vector<double>& imbalances = layers_[l].imbalances;
    if (distance > kOtherLoad) {
      recent.clear();
      imbalances.clear();
      layers_[l].settled = 0;
    }
    if (Sum(newest[l]) <= 0) continue;
    if (recent.size() == kRecent) {
      recent.erase(recent.begin());
      if (!imbalances.empty()) imbalances.erase(imbalances.begin());
    }
    recent.push_back(std::move(newest[l]));
  }
}

double RepairPlanner::Imbalance(Layer& layer, std::span<const double> counts) const {
  if (options_.splits_evenly) return eplb::EvenSplitImbalance(layer.now, counts);
  layer.split->Solve(counts);
  return layer.split->imbalance();
}

double RepairPlanner::RecentImbalance(Layer& layer) const {
  while (layer.imbalances.size() < layer.recent.size())
    layer.imbalances.push_back(Imbalance(layer, layer.recent[layer.imbalances.size()]));
  double sum = 0, weights = 0, weight = 1;
  for (size_t i = layer.recent.size(); i-- > 0; weight *= kRecencyDecay) {
    sum += weight * layer.imbalances[i];
    weights += weight;
  }
  return weights > 0 ? sum / weights : 0;
}

RepairPlanner::Offer RepairPlanner::Repair(size_t l, int32_t max_fetched_slots) {
  Layer& layer = layers_[l];
  eplb::BatchLoads scenarios{layer.now.num_experts};
  eplb::Random random(options_.seed + static_cast<uint64_t>(++num_repairs_));
  for (size_t i = 0; i < layer.recent.size(); ++i)
    scenarios.Add(layer.recent[i],
                  std::pow(kRecencyDecay, static_cast<double>(layer.recent.size() - 1 - i)));
  const size_t num_recent = layer.recent.size();
  for (size_t i = num_recent; i < kScenarios; ++i) {
    std::vector<double> varied = layer.recent[num_recent - 1 - i % num_recent];
    for (double& tokens : varied)
      tokens = std::max(0.0, tokens + std::sqrt(tokens) * random.Normal());
    scenarios.Add(varied, 0.5);
  }
  const eplb::RepairResult result =
      eplb::RepairPlacement(layer.now, scenarios,
                            {.max_fetched_slots = max_fetched_slots,
                             .splits_evenly = options_.splits_evenly,
                             .until = options_.target,
                             .min_gain = options_.min_gain,
                             .seed = options_.seed + static_cast<uint64_t>(num_repairs_)});
  if (result.fetched_slots < max_fetched_slots - 1) {  // a swap fetches two
    layer.settled = result.imbalance_after;
    layer.is_repaired = false;
  }
  return {l, result.placement, result.fetched_slots,
          result.imbalance_before - result.imbalance_after};
}

// The worst layers first, until they offer more than can be taken.
std::vector<RepairPlanner::Offer> RepairPlanner::MakeOffers() {
  std::vector<std::pair<double, size_t>> worst;
  for (size_t l = 0; l < layers_.size(); ++l) {
    Layer& layer = layers_[l];
    const double imbalance = RecentImbalance(layer);
    if (imbalance > std::max(options_.threshold, kWorse * layer.settled)) layer.is_repaired = true;
    if (imbalance <= options_.target) layer.is_repaired = false;
    if (layer.is_repaired) worst.emplace_back(-imbalance, l);
  }
  std::sort(worst.begin(), worst.end());
  const int32_t budget = options_.max_fetched_slots_per_iter;
  std::vector<Offer> offers;
  int32_t num_offered = 0;
  for (const auto& [imbalance, l] : worst) {
    if (num_offered >= kChoice * budget) break;
    offers.push_back(Repair(l, budget));
    num_offered += offers.back().fetched_slots;
  }
  std::stable_sort(offers.begin(), offers.end(), [](const Offer& a, const Offer& b) {
    return a.gain * std::max(1, b.fetched_slots) > b.gain * std::max(1, a.fetched_slots);
  });
  return offers;
}

std::vector<LayerChange> RepairPlanner::Plan(const IterationCounts& counts) {
  if (counts.is_warmup) return {};
  Take(counts);
  if (counts.is_asked)
    for (Layer& layer : layers_) layer.is_repaired = !layer.recent.empty();
  int32_t budget = options_.max_fetched_slots_per_iter;
  std::vector<LayerChange> changes;
  for (Offer& offer : MakeOffers()) {
    if (budget == 0) break;
    if (offer.fetched_slots > budget) offer = Repair(offer.layer, budget);
    Layer& layer = layers_[offer.layer];
    if (offer.placement == layer.now || offer.gain <= 0) continue;
    budget -= offer.fetched_slots;
    Place(layer, offer.placement);
    changes.push_back({static_cast<int32_t>(offer.layer), std::move(offer.placement)});
  }
  std::sort(changes.begin(), changes.end(),
            [](const LayerChange& a, const LayerChange& b) { return a.moe_layer < b.moe_layer; });
  return changes;
}

}  // namespace wideload::rebalance
