#include "eplb/replay/placement_figures.h"

#include <algorithm>

#include "base/error.h"
#include "eplb/placement/even_split.h"
#include "eplb/search/component_plan.h"
#include "eplb/split/water_filling.h"

namespace wideload::eplb {

PlacementFigures JudgePlacement(const Placement& placement, const BatchLoads& batches) {
  WaterFilling split(placement);
  PlacementFigures figures{.num_components = split.graph().num_components,
                           .duplicate_slots = CountDuplicateSlots(placement)};
  double weight = 0;
  for (int32_t i = 0; i < batches.size(); ++i) {
    const double share = batches.weights[static_cast<size_t>(i)];
    split.Solve(batches.At(i));
    figures.imbalance_optimal += share * split.imbalance();
    figures.imbalance_even += share * EvenSplitImbalance(placement, batches.At(i));
    weight += share;
  }
  if (weight <= 0) return figures;
  figures.imbalance_optimal /= weight;
  figures.imbalance_even /= weight;
  return figures;
}

PlacementBounds BoundPlacements(const BatchLoads& batches, const Sizes& sizes) {
  PlacementBounds bounds{
      .component = ComponentBound(batches, sizes),
      .fewest_components = FewestComponents(batches.num_experts, sizes.num_slots, sizes.num_ranks)};
  double weight = 0;
  for (int32_t i = 0; i < batches.size(); ++i) {
    const double share = batches.weights[static_cast<size_t>(i)];
    bounds.replica_capacity += share * ReplicaCapacityBound(batches.At(i), sizes);
    weight += share;
  }
  if (weight > 0) bounds.replica_capacity /= weight;
  return bounds;
}

}  // namespace wideload::eplb
