// The store that keeps a bounded choice of the batches met while serving, for plans and repairs
// that must remember more than the last few. Plain value; not thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "eplb/placement/batch_loads.h"
#include "eplb/placement/placement.h"

namespace wideload::eplb {

// How much is remembered, and how fast it fades.
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
  BatchLoads Get() const;

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

}  // namespace wideload::eplb
