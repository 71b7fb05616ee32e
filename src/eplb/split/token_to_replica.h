// TensorRT-LLM's rule which replica computes a token: round robin over an expert's slots, blind to
// load. Pure; thread-safe.
#pragma once

#include <cstdint>
#include <span>

#include "eplb/placement/placement.h"

namespace wideload::eplb {

// Entries are counted anew in every block of this many.
inline constexpr int64_t kTokenToReplicaBlock = 1024;

struct TokenToReplicaOptions {
  EpRank source{0};           // the rank that owns the tokens; 0 without attention data parallelism
  int32_t invalid_slot = -1;  // written for ids outside 0..num_experts-1 (TensorRT-LLM: num_slots)
};

// expert_ids [n]: routed entries of one rank, flattened (token, k) row-major. Writes slots [n]:
// entry i of an expert's c-th appearance (from 0) in its block of 1024 goes to the expert's slot
// number (c + block + source) mod replicas. `seen` [num_experts] is scratch, overwritten.
void ChooseReplicasInTurn(const RoutingTable& table, const TokenToReplicaOptions& options,
                          std::span<const int32_t> expert_ids, std::span<int32_t> seen,
                          std::span<int32_t> slots);

}  // namespace wideload::eplb
