#include "eplb/scenario.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "eplb/water_filling.h"

namespace wideload::eplb {
namespace {

// Vectors older than this many times the capacity say nothing about today.
constexpr int32_t kHorizon = 8;

}  // namespace

void Scenarios::Add(std::span<const double> load, double weight) {
  if (load.size() != static_cast<size_t>(num_experts))
    Throw(ErrorKind::kInvalid, "a scenario has {} loads; it must have one for each of {} experts",
          load.size(), num_experts);
  for (size_t e = 0; e < load.size(); ++e)
    if (!(load[e] >= 0) || !std::isfinite(load[e]))
      Throw(ErrorKind::kInvalid, "a scenario's load of expert {} is {}; it must be 0 or more", e,
            load[e]);
  loads.insert(loads.end(), load.begin(), load.end());
  weights.push_back(weight);
}

std::vector<double> Scenarios::Mean() const {
  std::vector<double> mean(static_cast<size_t>(num_experts), 0.0);
  for (int32_t i = 0; i < size(); ++i) {
    const std::span<const double> load = At(i);
    const double sum = std::accumulate(load.begin(), load.end(), 0.0);
    if (sum <= 0) continue;
    const double scale = weights[static_cast<size_t>(i)] / sum;
    for (size_t e = 0; e < mean.size(); ++e) mean[e] += load[e] * scale;
  }
  return mean;
}

std::vector<double> Scenarios::Sum() const {
  std::vector<double> sum(static_cast<size_t>(num_experts), 0.0);
  for (int32_t i = 0; i < size(); ++i)
    for (size_t e = 0; e < sum.size(); ++e) sum[e] += At(i)[e];
  return sum;
}

ScenarioStore::ScenarioStore(int32_t num_experts, const ScenarioStoreOptions& options)
    : num_experts_(num_experts), options_(options) {
  if (options.capacity < 2)
    Throw(ErrorKind::kInvalid, "scenario store: capacity is {}; it must be 2 or more",
          options.capacity);
  if (!(options.decay > 0 && options.decay <= 1))
    Throw(ErrorKind::kInvalid, "scenario store: decay is {}; allowed: above 0, up to 1",
          options.decay);
  if (!(options.floor_weight > 0 && options.floor_weight <= 1))
    Throw(ErrorKind::kInvalid, "scenario store: floor_weight is {}; allowed: above 0, up to 1",
          options.floor_weight);
}

double ScenarioStore::WeightOf(int64_t batch) const {
  const auto age = static_cast<double>(batches_ - 1 - batch);
  return std::max(options_.floor_weight, std::pow(options_.decay, age));
}

void ScenarioStore::Add(std::span<const double> counts) {
  WIDELOAD_CHECK(counts.size() == static_cast<size_t>(num_experts_), "{} counts for {} experts",
                 counts.size(), num_experts_);
  const int64_t batch = batches_++;
  if (std::accumulate(counts.begin(), counts.end(), 0.0) <= 0) return;
  entries_.push_back({batch, {counts.begin(), counts.end()}});
  if (size() <= options_.capacity) return;
  // The oldest goes when it is past the horizon; else the one whose gap, measured against its age,
  // is smallest once it is gone.
  size_t drop = 0;
  double smallest = 0;
  const bool stale = batches_ - entries_[0].batch > int64_t{kHorizon} * options_.capacity;
  for (size_t i = 1; !stale && i + 1 < entries_.size(); ++i) {
    const auto gap = static_cast<double>(entries_[i + 1].batch - entries_[i - 1].batch);
    const double relative = gap / static_cast<double>(batches_ - entries_[i].batch);
    if (i == 1 || relative < smallest) {
      drop = i;
      smallest = relative;
    }
  }
  entries_.erase(entries_.begin() + static_cast<std::ptrdiff_t>(drop));
}

Scenarios ScenarioStore::Get() const {
  Scenarios scenarios{num_experts_, {}, {}};
  for (const Entry& entry : entries_) scenarios.Add(entry.counts, WeightOf(entry.batch));
  return scenarios;
}

double ScenarioStore::Drift(const Placement& placement, double planned_imbalance,
                            int32_t recent) const {
  Scenarios newest{num_experts_, {}, {}};
  const auto first = entries_.size() - std::min(entries_.size(), static_cast<size_t>(recent));
  for (size_t i = first; i < entries_.size(); ++i)
    newest.Add(entries_[i].counts, WeightOf(entries_[i].batch));
  if (newest.size() == 0) return 0;
  return MeanOptimalImbalance(placement, newest) - planned_imbalance;
}

double MeanOptimalImbalance(const Placement& placement, const Scenarios& scenarios,
                            const std::vector<double>& rank_speed) {
  WaterFilling split(placement, {rank_speed, 0});
  double sum = 0;
  double weight = 0;
  for (int32_t i = 0; i < scenarios.size(); ++i) {
    split.Solve(scenarios.At(i));
    sum += scenarios.weights[static_cast<size_t>(i)] * split.imbalance();
    weight += scenarios.weights[static_cast<size_t>(i)];
  }
  return weight > 0 ? sum / weight : 0.0;
}

}  // namespace wideload::eplb
