// Repair: changes a placement as little as it takes. Every fetched slot is one expert's weights
// sent to a rank, so the best gain per fetch comes first, within a budget. A dead rank is one of
// speed 0: its experts are covered first. Pure; one layer at a time; deterministic for a seed.
#pragma once

#include <cstdint>
#include <vector>

#include "eplb/placement.h"
#include "eplb/scenario.h"

namespace wideload::eplb {

struct RepairOptions {
  int32_t max_fetched_slots = 2;
  double until = 0;                     // stops at this mean optimal-split imbalance
  double min_gain = 1e-4;               // mean imbalance that a fetched slot must save at least
  std::vector<double> rank_speed = {};  // [num_ranks] >= 0; empty: all 1; 0: a dead rank
  int32_t proposals = 250;              // looked at before each change
  uint64_t seed = 1;
};

struct RepairResult {
  Placement placement;
  int32_t fetched_slots = 0;    // slots whose expert their rank does not hold now
  double imbalance_before = 0;  // weighted mean over scenarios, optimal split; after covering
  double imbalance_after = 0;   //   experts that had no live slot
};

// The budget does not bind the covering of experts without a live slot. Slots of dead ranks keep
// what they hold. Errors: kInvalid for a wrong number of speeds or no scenario with load; kResource
// when live slots are fewer than experts.
RepairResult RepairPlacement(const Placement& now, const Scenarios& scenarios,
                             const RepairOptions& options);

}  // namespace wideload::eplb
