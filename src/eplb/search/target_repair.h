// The fewest fetches that bring a placement under a target: how many tokens do not fit when no rank
// may carry more than the target tells (a maximum flow) says how far a placement is from it, also
// where several sets of ranks bind at once, and each change is judged by what it takes off that.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "eplb/placement/batch_loads.h"
#include "eplb/placement/node_rule.h"
#include "eplb/placement/placement.h"

namespace wideload::eplb {

struct TargetOptions {
  double until = 0.01;  // mean optimal-split imbalance that is low enough
  int32_t max_fetched_slots = 0;
  std::vector<double> rank_speed;  // [num_ranks] >= 0; 0: a dead rank
  NodeRule nodes = {};             // kept by every change, see NodeSlots
};

// `start` with as few slots fetched as a beam search finds (a slot is fetched when its rank does
// not hold its expert in `start`); nothing when it finds no placement under the target. Every
// expert needs a live slot in `start`, and a scenario some load; `start` must keep the bound of
// options.nodes, and experts with a slot at home keep one. Pure; no randomness.
std::optional<Placement> RepairToTarget(const Placement& start, const BatchLoads& scenarios,
                                        const TargetOptions& options);

}  // namespace wideload::eplb
