// What a placement brings on recorded batches under the two splits, beside the bounds that no
// placement of its sizes can go below. Pure; thread-safe.
#pragma once

#include <cstdint>

#include "eplb/bounds.h"
#include "eplb/placement.h"
#include "eplb/scenario.h"

namespace wideload::eplb {

// Imbalance ratios are weighted means over the batches; 0 without any.
struct PlacementFigures {
  double imbalance_even = 0;     // every slot of an expert gets the same share
  double imbalance_optimal = 0;  // each batch split as well as this placement allows, fractional
  int32_t num_components = 0;    // of ranks joined by experts that several of them hold
  int32_t duplicate_slots = 0;
};
PlacementFigures JudgePlacement(const Placement& placement, const Scenarios& batches);

// Bounds of the imbalance ratio for any placement. That of the mean load is 0 by definition.
struct PlacementBounds {
  double replica_capacity = 0;  // mean over batches
  double component = 0;         // an estimate, over batches like these; 0 for a single batch
  int32_t fewest_components = 1;
};
PlacementBounds BoundPlacements(const Scenarios& batches, const Sizes& sizes);

// Slots whose expert their rank holds nowhere in `before`: weights that ranks must fetch. The
// numbers of ranks must be equal, those of slots need not be.
int32_t CountFetchedSlots(const Placement& before, const Placement& after);

// The fewest slots, a multiple of num_ranks, with which all ranks can form one component:
// num_experts + num_ranks - 1, rounded up.
int32_t SlotsForOneComponent(int32_t num_experts, int32_t num_ranks);

}  // namespace wideload::eplb
