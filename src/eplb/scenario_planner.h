// The balancer's own policy: placements made for the optimal per-batch split, from the count
// vectors of recorded batches. One layer at a time; pure, deterministic for a seed; layers may be
// planned on different threads.
#pragma once

#include <cstdint>

#include "eplb/placement.h"
#include "eplb/scenario.h"

namespace wideload::eplb {

struct PlanOptions {
  int32_t num_ranks = 1;
  int32_t num_slots = 1;
  uint64_t seed = 1;
  int64_t max_moves = 10000;  // proposals of the search; 0: the component-aware plan alone
};

// Errors: kInvalid from ValidateSizes, and when no scenario is given.
Placement PlanPlacement(const Scenarios& scenarios, const PlanOptions& options);

}  // namespace wideload::eplb
