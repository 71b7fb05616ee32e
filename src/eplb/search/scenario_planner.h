// The balancer's own policy: placements made for the optimal per-batch split, from the count
// vectors of recorded batches. One layer at a time; pure, the same result for the same seed on any
// thread; layers may be planned on different threads.
#pragma once

#include <cstdint>
#include <vector>

#include "eplb/placement/batch_loads.h"
#include "eplb/placement/placement.h"
#include "eplb/search/node_plan.h"

namespace wideload::eplb {

struct PlanOptions {
  int32_t num_ranks = 1;
  int32_t num_slots = 1;
  NodeSizes nodes = {};
  // Slots that may hold experts of other nodes; negative: as many as there are nodes.
  int32_t max_cross_slots = -1;
  uint64_t seed = 1;
  int64_t max_moves = 100000;  // proposals of the search; 0: the component-aware plan alone
  // Recorded batches are few, and a search that knows only these learns them by heart: they are
  // joined by variations of them up to this many; 0: as many as ranks and slots leave
  // time for.
  int32_t num_scenarios = 0;
  double variation = 0.15;  // each expert's load times exp(variation x N(0, 1))
  double tail = 5;  // what is minimised: mean of h + tail x h^2, h the imbalance of a scenario
  // What the slots hold now; the ranks are relabelled so that few slots change. Not owned.
  const Placement* current = nullptr;
  // Added to what is minimised for each slot that its rank must fetch: about what a fetch must gain
  // in mean imbalance. Above 0, `current` itself is a start of the search, too.
  double fetch_price = 0;
};

// Errors: kInvalid from ValidateSizes and MakeNodeRule, when no scenario has load, for a price that
// is negative or not finite, and for a price without a `current` of these sizes.
Placement PlanPlacement(const BatchLoads& scenarios, const PlanOptions& options);

}  // namespace wideload::eplb
