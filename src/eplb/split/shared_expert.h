// Where the rows of a shared expert are computed: every rank holds it, so its tokens fill up the
// ranks that routed experts leave least busy. Pure; thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace wideload::eplb {

// routed [num_ranks]: cost of routed rows on each rank; tokens [num_ranks]: tokens of each source
// rank that need the shared expert; cost: of one such row, in routed rows, > 0. Returns
// rows [source * num_ranks + rank], rows of each source adding up to its tokens, such that the
// busiest rank is as little busy as whole rows allow and, under that, as many rows as possible stay
// at home. Errors: kInvalid for sizes that differ, negative numbers, cost not above 0.
std::vector<int32_t> SplitSharedExpert(std::span<const int64_t> routed,
                                       std::span<const int32_t> tokens, double cost = 1.0);

}  // namespace wideload::eplb
