// Lower bounds of the imbalance ratio: what no plan, or no split of a plan, can go below. Pure;
// thread-safe.
#pragma once

#include <cstdint>
#include <span>

#include "eplb/placement/batch_loads.h"
#include "eplb/placement/placement.h"

namespace wideload::eplb {

// Any placement, any split, one batch: an expert with n slots loads its busiest one with at least
// load / n, so that with level L every expert needs ceil(load / L) slots, and these must be there.
// Also holds for fractional splits, as a rank carries at most L. Returns (L - mean) / mean, >= 0.
double ReplicaCapacityBound(std::span<const double> loads, const Sizes& sizes);

// One placement, whole tokens: the busiest rank's tokens under the best split, by maximum flow and
// discrete Newton on the minimum cut. Slow; the certificate that the splitters are tested against.
int64_t OptimalWholeMaximum(const Placement& placement, std::span<const int64_t> counts);

// Any placement of these sizes, expectation over batches like the scenarios (estimate): there are
// at least R - (S - E) components, and no split moves load between them; the busiest of K groups
// of ranks, each with an equal share of the experts' variance. 0 with a single component.
double ComponentBound(const BatchLoads& scenarios, const Sizes& sizes);

// Expected (max - mean) / mean of `num_choices` choices thrown at ranks of equal chance (estimate):
// what the best static placement with a fixed split shows from sampling alone.
double SamplingFloor(int64_t num_choices, int32_t num_ranks);

// Expected maximum of n independent standard normal values.
double ExpectedNormalMaximum(int32_t n);

}  // namespace wideload::eplb
