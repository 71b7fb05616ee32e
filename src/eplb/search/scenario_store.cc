#include "eplb/search/scenario_store.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "eplb/split/water_filling.h"

namespace wideload::eplb {
namespace {

// Vectors older than this many times the capacity say nothing about today.
constexpr int32_t kHorizon = 8;

}  // namespace

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

BatchLoads ScenarioStore::Get() const {
  BatchLoads scenarios{num_experts_, {}, {}};
  for (const Entry& entry : entries_) scenarios.Add(entry.counts, WeightOf(entry.batch));
  return scenarios;
}

double ScenarioStore::Drift(const Placement& placement, double planned_imbalance,
                            int32_t recent) const {
  BatchLoads newest{num_experts_, {}, {}};
  const auto first = entries_.size() - std::min(entries_.size(), static_cast<size_t>(recent));
  for (size_t i = first; i < entries_.size(); ++i)
    newest.Add(entries_[i].counts, WeightOf(entries_[i].batch));
  if (newest.size() == 0) return 0;
  return MeanOptimalImbalance(placement, newest) - planned_imbalance;
}

}  // namespace wideload::eplb
