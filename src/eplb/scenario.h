// Scenarios: the count vectors of recorded batches that placements are made for, and the store that
// keeps a bounded choice of them while serving. Plain values; not thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "eplb/placement.h"

namespace wideload::eplb {

// Weighted count vectors of one layer.
struct Scenarios {
  int32_t num_experts = 0;
  std::vector<double> loads;    // [size * num_experts]
  std::vector<double> weights;  // [size], each > 0

  int32_t size() const { return static_cast<int32_t>(weights.size()); }
  std::span<const double> At(int32_t i) const {
    return std::span(loads).subspan(static_cast<size_t>(i) * static_cast<size_t>(num_experts),
                                    static_cast<size_t>(num_experts));
  }
  // Errors: kInvalid for another number of experts or a load that is negative or not finite.
  void Add(std::span<const double> load, double weight = 1.0);
  // Sum over scenarios, each scaled to the same total and weighted; [num_experts].
  std::vector<double> Mean() const;
  // Sum of the loads as they are, without weights: what TensorRT-LLM and DeepSeek plan from.
  std::vector<double> Sum() const;
};

struct ScenarioStoreOptions {
  int32_t capacity = 32;       // vectors kept, >= 2
  double decay = 0.8;          // weight of a vector relative to the next younger batch, in (0, 1]
  double floor_weight = 0.05;  // no vector weighs less than this share of the newest
};

// What the online balancer remembers of one layer: the newest batches all, older ones ever more
// sparsely (the vector that is dropped is the one closest to its neighbours for its age), so that
// a load seen some time ago still counts a little; none older than 8 x capacity batches. No
// randomness.
class ScenarioStore {
 public:
  // Errors: kInvalid naming the option.
  explicit ScenarioStore(int32_t num_experts, const ScenarioStoreOptions& options = {});

  // counts [num_experts] of the newest batch; a batch without tokens only ages the others.
  void Add(std::span<const double> counts);
  int32_t size() const { return static_cast<int32_t>(entries_.size()); }
  // The kept vectors, oldest first, with their weights.
  Scenarios Get() const;

  // How much worse the placement has become: the optimal-split imbalance of the newest `recent`
  // vectors (weighted), less what it had when it was planned. Positive: worse.
  double Drift(const Placement& placement, double planned_imbalance, int32_t recent = 4) const;

 private:
  struct Entry {
    int64_t batch;
    std::vector<double> counts;
  };
  double WeightOf(int64_t batch) const;

  int32_t num_experts_;
  ScenarioStoreOptions options_;
  int64_t batches_ = 0;
  std::vector<Entry> entries_;
};

// Weighted mean over scenarios of the imbalance under the optimal split. rank_speed [num_ranks], or
// empty for 1 each; a rank with 0 computes nothing.
double MeanOptimalImbalance(const Placement& placement, const Scenarios& scenarios,
                            const std::vector<double>& rank_speed = {});

}  // namespace wideload::eplb
