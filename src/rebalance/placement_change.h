// What an online balancer decides for one boundary between iterations: plain values, the same on
// all ranks.
#pragma once

#include <cstdint>
#include <vector>

#include "eplb/placement/placement.h"

namespace wideload::rebalance {

// A layer's slots from now on; of the same sizes as before.
struct LayerChange {
  int32_t moe_layer = 0;  // position among the layers with experts
  eplb::Placement placement;
  bool operator==(const LayerChange&) const = default;
};

struct PlacementChange {
  int64_t generation = 0;           // 1, 2, ...; 0: the placements of the start
  std::vector<LayerChange> layers;  // each layer at most once, ascending
  bool operator==(const PlacementChange&) const = default;
};

// A fingerprint over all fields (FNV-1a, 64 bits), by which ranks tell that they were given the
// same change.
uint64_t DigestOf(const PlacementChange& change);

}  // namespace wideload::rebalance
