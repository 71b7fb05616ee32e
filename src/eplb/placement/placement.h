// Where experts live: a placement (slot -> expert) of one layer and its inverse, the routing table
// (expert -> slots). Plain values; no threads, files or devices in this module.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/ids.h"

namespace wideload::eplb {

// How large a layer is laid out.
struct Sizes {
  int32_t num_slots = 1;
  int32_t num_ranks = 1;
};

// slot_expert[s] is the expert that slot s holds; rank r owns slots [r * slots_per_rank, (r + 1) *
// slots_per_rank).
struct Placement {
  int32_t num_experts = 0;
  int32_t num_ranks = 1;
  std::vector<ExpertId> slot_expert;

  int32_t num_slots() const { return static_cast<int32_t>(slot_expert.size()); }
  int32_t slots_per_rank() const { return num_slots() / num_ranks; }
  // The rank that owns the slot.
  EpRank RankOf(SlotId slot) const { return EpRank(slot.value / slots_per_rank()); }
  bool operator==(const Placement&) const = default;
};

// Errors: kInvalid, prefixed by `where`: num_slots below num_experts or not a multiple of
// num_ranks, an id out of range, an expert without a slot. Duplicates on one rank are allowed here.
void ValidatePlacement(const Placement& placement, const std::string& where);
// Errors: kInvalid naming the sizes: num_slots must be at least num_experts and a multiple of
// num_ranks.
void ValidateSizes(int32_t num_experts, int32_t num_slots, int32_t num_ranks,
                   const std::string& where);

// expert -> its slots, ascending: slots[offsets[e] .. offsets[e + 1]).
struct RoutingTable {
  std::vector<int32_t> offsets;  // [num_experts + 1]
  std::vector<SlotId> slots;     // [num_slots]

  // The expert's slots, ascending; at least one of a valid placement.
  std::span<const SlotId> SlotsOf(ExpertId expert) const {
    const auto begin = static_cast<size_t>(offsets[static_cast<size_t>(expert.value)]);
    const auto end = static_cast<size_t>(offsets[static_cast<size_t>(expert.value) + 1]);
    return std::span(slots).subspan(begin, end - begin);
  }
};
// The inverse of a valid placement.
RoutingTable MakeRoutingTable(const Placement& placement);

// Slot j of rank r holds expert (floor(r * E / R) + j) mod E, as TensorRT-LLM starts without a
// file; with num_slots == num_experts and R dividing E these are contiguous blocks.
Placement ContiguousPlacement(int32_t num_experts, int32_t num_slots, int32_t num_ranks);

// Every expert at least once, the rest at random; duplicates on one rank allowed. The same seed
// gives the same placement everywhere.
Placement RandomPlacement(int32_t num_experts, int32_t num_slots, int32_t num_ranks, uint64_t seed);

// (max - mean) / mean of tokens per rank; 0 when there are none.
double ImbalanceRatio(std::span<const double> rank_loads);

}  // namespace wideload::eplb
