// The constructive start of the planner: a placement whose replicas join the ranks into as few
// components as the number of slots allows, with equally loaded components and ranks. Pure.
#pragma once

#include <cstdint>
#include <span>

#include "eplb/placement/placement.h"

namespace wideload::eplb {

// Every replica joins at most two components of ranks, so no placement has fewer than this many.
int32_t FewestComponents(int32_t num_experts, int32_t num_slots, int32_t num_ranks);

// The fewest slots, a multiple of num_ranks, with which all ranks can form one component:
// num_experts + num_ranks - 1, rounded up.
int32_t SlotsForOneComponent(int32_t num_experts, int32_t num_ranks);

enum class ReplicaRule {
  kHottestTwice,    // the hottest experts get a second slot, once all have two a third
  kHighestPerSlot,  // each spare slot to the highest load per slot
};

// loads [num_experts], >= 0. No expert twice on one rank while that is possible.
// Errors: kInvalid from ValidateSizes.
Placement ComponentPlan(std::span<const double> loads, int32_t num_slots, int32_t num_ranks,
                        ReplicaRule rule = ReplicaRule::kHighestPerSlot);

}  // namespace wideload::eplb
