#include "eplb/placement_figures.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "eplb/component_plan.h"
#include "eplb/even_split.h"
#include "eplb/water_filling.h"

namespace wideload::eplb {

PlacementFigures JudgePlacement(const Placement& placement, const Scenarios& batches) {
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

PlacementBounds BoundPlacements(const Scenarios& batches, const Sizes& sizes) {
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

int32_t CountFetchedSlots(const Placement& before, const Placement& after) {
  WIDELOAD_CHECK(before.num_ranks == after.num_ranks, "placements on {} and {} ranks",
                 before.num_ranks, after.num_ranks);
  const auto experts_of = [](const Placement& placement, int32_t rank) {
    const auto begin = placement.slot_expert.begin() + int64_t{rank} * placement.slots_per_rank();
    return std::multiset<ExpertId>(begin, begin + placement.slots_per_rank());
  };
  int32_t fetched = 0;
  for (int32_t rank = 0; rank < after.num_ranks; ++rank) {
    const std::multiset<ExpertId> held = experts_of(before, rank);
    for (const ExpertId expert : experts_of(after, rank)) fetched += !held.contains(expert);
  }
  return fetched;
}

int32_t SlotsForOneComponent(int32_t num_experts, int32_t num_ranks) {
  return (num_experts + 2 * num_ranks - 2) / num_ranks * num_ranks;
}

}  // namespace wideload::eplb
