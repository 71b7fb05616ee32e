// Repair for engines that split an expert's tokens evenly over its slots: the same budget of
// fetches and the same rules as repair.h, another objective. Internal to eplb; pure, deterministic
// for a seed.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "eplb/placement/batch_loads.h"
#include "eplb/placement/node_rule.h"
#include "eplb/placement/placement.h"

namespace wideload::eplb {

struct EvenRepairOptions {
  int32_t max_fetched_slots = 2;
  double until = 0;                // stops at this mean imbalance
  double min_gain = 1e-4;          // of the objective (about the mean imbalance), per fetched slot
  std::vector<double> rank_speed;  // [num_ranks] >= 0; 0: a dead rank
  NodeRule nodes = {};             // kept by every change; `start` must keep it
  uint64_t seed = 1;
};

// `start` changed by at most max_fetched_slots: step by step, the best gain per fetch first, until
// the target is met; where it is not (always with 0), annealed within the budget, too, and the
// better of the two. Every expert needs a live slot in `start`, and a batch some load.
Placement RepairForEvenSplit(const Placement& start, const BatchLoads& batches,
                             const EvenRepairOptions& options);

// Weighted mean over batches of the imbalance ratio, relative to speeds, when an expert's tokens
// are split evenly over its live slots. Batches without load are left out.
double MeanEvenImbalance(const Placement& placement, const BatchLoads& batches,
                         std::span<const double> rank_speed);

}  // namespace wideload::eplb
