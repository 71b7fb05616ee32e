// The balancer's own policy: placements made for the optimal per-batch split, from the count
// vectors of recorded batches. One layer at a time; pure, the same result for the same seed on any
// thread; layers may be planned on different threads.
#pragma once

#include <cstdint>
#include <vector>

#include "eplb/node_plan.h"
#include "eplb/placement.h"
#include "eplb/scenario.h"

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
Placement PlanPlacement(const Scenarios& scenarios, const PlanOptions& options);

// `count` scenarios to plan with: recorded ones, evenly chosen when there are more, and between
// them variations of them in turn, scaled to the same total.
Scenarios VaryScenarios(const Scenarios& recorded, int32_t count, double variation, uint64_t seed);

// `planned` with the slots within each rank in such an order that experts which the rank holds in
// `current` stay where they are; the sizes of both are the same.
Placement KeepSlots(const Placement& current, const Placement& planned);

// `planned` with its ranks renamed so that as many slots as possible hold what they hold in
// `current` (optimal up to 256 ranks, greedy beyond), and slots ordered within ranks alike. Ranks
// stay on their node of `ranks_per_node`; 0: there are no nodes.
Placement RelabelRanks(const Placement& current, const Placement& planned,
                       int32_t ranks_per_node = 0);

}  // namespace wideload::eplb
