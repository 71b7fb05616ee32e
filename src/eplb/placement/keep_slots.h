// What a new placement may keep of the one in use without being another placement: names of ranks
// and places within a rank mean nothing to the balance, but every slot that holds another expert is
// weights to move. Pure; thread-safe.
#pragma once

#include <cstdint>
#include <string>

#include "eplb/placement/placement.h"

namespace wideload::eplb {

// `planned` with the slots within each rank in such an order that experts which the rank holds in
// `current` stay where they are; the sizes of both are the same.
Placement KeepSlots(const Placement& current, const Placement& planned);

// `planned` with its ranks renamed so that as many slots as possible hold what they hold in
// `current` (optimal up to 256 ranks, greedy beyond), and slots ordered within ranks alike. Ranks
// stay on their node of `ranks_per_node`; 0: there are no nodes.
Placement RelabelRanks(const Placement& current, const Placement& planned,
                       int32_t ranks_per_node = 0);

// RelabelRanks, or KeepSlots where that fetches fewer slots.
Placement KeepInPlace(const Placement& current, const Placement& planned,
                      int32_t ranks_per_node = 0);

// What a price of fetches is about.
struct PricedPlan {
  int32_t num_experts = 0;
  Sizes sizes;
  std::string what;  // opens the message of an error
};
// Errors: kInvalid for a price that is negative or not finite, and for one above 0 without a
// `current` of the plan's sizes.
void CheckFetchPrice(double price, const Placement* current, const PricedPlan& plan);

}  // namespace wideload::eplb
