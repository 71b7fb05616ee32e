// DeepSeek's expert-parallel balancer: global, or hierarchical over nodes. Pure; thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "eplb/placement/placement.h"

namespace wideload::eplb {

// Arguments of the published function rebalance_experts, in our words.
struct DeepSeekSizes {
  int32_t num_slots = 0;   // num_replicas of the published function
  int32_t num_groups = 1;  // expert groups of the router
  int32_t num_nodes = 1;
  int32_t num_ranks = 1;  // num_gpus of the published function
};

// Its results for one layer.
struct DeepSeekPlan {
  std::vector<int32_t> slot_expert;   // [num_slots]: physical_to_logical_map
  std::vector<int32_t> slot_replica;  // [num_slots] the how manieth copy of its expert, from 0: the
                                      // slot's place in logical_to_physical_map
  std::vector<int32_t> replicas;      // [num_experts]: expert_count
};

// Plans one layer as rebalance_experts of deepseek-ai/EPLB does: groups packed onto nodes, experts
// replicated within their node, slots packed onto its ranks; as one group on one node when
// num_groups is no multiple of num_nodes. All arithmetic is single precision in the order PyTorch
// adds, so plans are identical where no loads tie; ties go to the lowest index.
// Loads [num_experts], finite and >= 0. Errors: kInvalid for other loads, num_slots below the
// experts, sizes that do not divide: experts by groups, ranks by nodes, slots by ranks.
DeepSeekPlan DeepSeekRebalance(std::span<const float> loads, const DeepSeekSizes& sizes);

// The slots of DeepSeekRebalance alone. Errors: the same.
Placement DeepSeekPlacement(std::span<const float> loads, const DeepSeekSizes& sizes);

}  // namespace wideload::eplb
