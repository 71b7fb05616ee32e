// Where the experts of all layers live, as every rank reads it in an iteration: a constant value,
// shared by the ranks of a process and swapped whole between iterations. Thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "eplb/placement/placement.h"
#include "exchange/layout.h"

namespace wideload::moe {

struct PlacementTable {
  int64_t generation = 0;                   // 0: as the run starts; each change has a higher one
  std::vector<eplb::Placement> placements;  // [MoE layers], of the same sizes
  uint64_t digest = 0;                      // of both, by which ranks compare them

  exchange::PlacementStamp stamp() const { return {.generation = generation, .digest = digest}; }
};

// Owners: who makes tables and hands them on, and each rank that goes by one.
using SharedPlacements = std::shared_ptr<const PlacementTable>;

// With its digest.
SharedPlacements MakePlacementTable(int64_t generation, std::vector<eplb::Placement> placements);

}  // namespace wideload::moe
