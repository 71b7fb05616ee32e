// The four strong ids: an expert, a slot, a layer and an EP rank are never mixed up. Plain values.
#pragma once

#include <compare>
#include <cstdint>

namespace wideload {

template <class Tag>
struct StrongId {
  int32_t value = -1;
  constexpr StrongId() = default;
  // A number becomes an id only where the code says so.
  constexpr explicit StrongId(int32_t v) : value(v) {}
  auto operator<=>(const StrongId&) const = default;
};

using ExpertId = StrongId<struct ExpertTag>;  // what the router chooses, 0..num_experts-1
using SlotId = StrongId<struct SlotTag>;  // a place that holds one expert's weights, 0..num_slots-1
using LayerId = StrongId<struct LayerTag>;  // layer of the model, dense layers counted too
using EpRank = StrongId<struct EpRankTag>;  // rank within the expert-parallel group

}  // namespace wideload
