// What a placement brings on recorded batches under the two splits, beside the bounds that no
// placement of its sizes can go below. Pure; thread-safe.
#pragma once

#include <cstdint>

#include "eplb/placement/batch_loads.h"
#include "eplb/placement/placement.h"
#include "eplb/replay/bounds.h"

namespace wideload::eplb {

// Imbalance ratios are weighted means over the batches; 0 without any.
struct PlacementFigures {
  double imbalance_even = 0;     // every slot of an expert gets the same share
  double imbalance_optimal = 0;  // each batch split as well as this placement allows, fractional
  int32_t num_components = 0;    // of ranks joined by experts that several of them hold
  int32_t duplicate_slots = 0;
};
// The figures of a valid placement; the batches may be none.
PlacementFigures JudgePlacement(const Placement& placement, const BatchLoads& batches);

// Bounds of the imbalance ratio for any placement. That of the mean load is 0 by definition.
struct PlacementBounds {
  double replica_capacity = 0;  // mean over batches
  double component = 0;         // an estimate, over batches like these; 0 for a single batch
  int32_t fewest_components = 1;
};
// The bounds for these sizes; `batches` may be none.
PlacementBounds BoundPlacements(const BatchLoads& batches, const Sizes& sizes);

}  // namespace wideload::eplb
