// Fingerprints of experts' bytes, to hold slots against. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "compute/matrix.h"

namespace wideload::moe {

// All experts of a host: of each MoE layer its experts [E]; constant.
using HostExperts = std::vector<std::span<const compute::ExpertWeights>>;

// Another one whenever a single byte differs.
uint64_t SumBytes(std::span<const std::byte> bytes);

// SumBytes of every expert [MoE layers * E]; 0 for experts that this process does not hold.
using ExpertSums = std::vector<uint64_t>;
// A sum for each expert of each layer, in the order of `experts`; on the pool's threads.
ExpertSums SumExperts(const HostExperts& experts, ThreadPool& pool);

}  // namespace wideload::moe
