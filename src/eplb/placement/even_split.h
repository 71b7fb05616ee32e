// What a placement gives when an expert's tokens are shared equally by its slots, and how it
// differs from another. Pure; thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "eplb/placement/placement.h"

namespace wideload::eplb {

// Tokens per rank [num_ranks] for loads [num_experts].
std::vector<double> EvenSplitRankLoads(const Placement& placement, std::span<const double> loads);

// (busiest - mean) / mean of these tokens; 0 without any.
double EvenSplitImbalance(const Placement& placement, std::span<const double> loads);

// Slots whose expert an earlier slot of the same rank holds: they bring nothing.
int32_t CountDuplicateSlots(const Placement& placement);

// Slots that hold another expert in `after`; both must have the same number of slots.
int32_t CountChangedSlots(const Placement& before, const Placement& after);

// Slots whose expert their rank holds nowhere in `before`: weights that ranks must fetch. The
// numbers of ranks must be equal, those of slots need not be.
int32_t CountFetchedSlots(const Placement& before, const Placement& after);

}  // namespace wideload::eplb
