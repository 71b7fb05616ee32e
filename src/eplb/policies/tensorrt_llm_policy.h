// TensorRT-LLM's greedy balancer: how many replicas each expert gets and where they go, the same
// slots as its generator and online balancer give. Pure; thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "eplb/placement/placement.h"

namespace wideload::eplb {

// loads [num_experts], finite and >= 0. Returns [num_experts] counts that sum to num_slots: every
// expert one; each spare slot to the expert with the highest load per replica (ties: the highest
// id); without any load the slots are dealt out evenly, the first experts one more. Arithmetic in
// double on float loads.
// Errors: kInvalid for a negative or non-finite load, or num_slots below the number of experts.
std::vector<int32_t> TensorRtLlmReplicaCounts(std::span<const float> loads, int32_t num_slots);

// Puts each expert's `replicas` [num_experts] on ranks: heaviest load per replica first (ties: the
// lowest id), each into the next slot of the least loaded rank with room (ties: the lowest rank).
// Replicas must be >= 1 and their sum a multiple of num_ranks. Errors: kInvalid.
Placement TensorRtLlmPlacement(std::span<const float> loads, std::span<const int32_t> replicas,
                               int32_t num_ranks);

// Both steps. Errors: kInvalid, also from ValidateSizes. Time O((E + S) log(E + R)).
Placement TensorRtLlmPlacement(std::span<const float> loads, int32_t num_slots, int32_t num_ranks);

}  // namespace wideload::eplb
