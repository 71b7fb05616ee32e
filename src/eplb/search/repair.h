// Repair: changes a placement as little as it takes. Every fetched slot is one expert's weights
// sent to a rank, so the best gain per fetch comes first, within a budget. A dead rank is one of
// speed 0: its experts are covered first. Over nodes experts stay at home. Pure; one layer at a
// time; deterministic for a seed.
#pragma once

#include <cstdint>
#include <vector>

#include "eplb/placement/batch_loads.h"
#include "eplb/placement/node_rule.h"
#include "eplb/placement/placement.h"

namespace wideload::eplb {

// What a repair balances for, and what it may spend.
struct RepairOptions {
  int32_t max_fetched_slots = 2;
  // Balances for engines that split an expert's tokens evenly over its live slots, else for those
  // that split each batch optimally. Imbalances below are under that split.
  bool splits_evenly = false;
  double until = 0;                     // stops at this mean imbalance
  double min_gain = 1e-4;               // mean imbalance that a fetched slot must save at least
  std::vector<double> rank_speed = {};  // [num_ranks] >= 0; empty: all 1; 0: a dead rank
  int32_t proposals = 0;  // looked at before each change; 0: 500 to 2000, more on few ranks and
                          // slots; optimal split
  uint64_t seed = 1;
  // Several: experts keep a slot on the node that HomesOf finds for them, if they have one there.
  NodeSizes nodes = {};
  // Slots that may hold experts of other nodes; negative: as many as nodes, or as `now` has if
  // these are more.
  int32_t max_cross_slots = -1;
};

// What became of the placement, and what it took.
struct RepairResult {
  Placement placement;
  int32_t fetched_slots = 0;       // slots whose expert their rank does not hold now
  double imbalance_before = 0;     // weighted mean over scenarios; after covering
  double imbalance_after = 0;      //   experts that had no live slot
  int32_t cross_slots_before = 0;  // live slots that hold experts of other nodes; 0 on one node
  int32_t cross_slots_after = 0;
};

// Neither the budget nor nodes bind the covering of experts without a live slot; it takes slots at
// home while it can. Slots of dead ranks keep what they hold.
// Errors: kInvalid for a wrong number of speeds, no scenario with load, sizes that CheckNodeSizes
// refuses, and when `now` has more than max_cross_slots; kResource when live slots are fewer than
// experts.
RepairResult RepairPlacement(const Placement& now, const BatchLoads& scenarios,
                             const RepairOptions& options);

}  // namespace wideload::eplb
