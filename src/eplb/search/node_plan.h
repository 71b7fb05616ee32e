// Plans over nodes: the experts of a router's group share a home node and every expert keeps a slot
// there; a bounded number of slots may hold experts of other nodes, and only these move load
// between nodes. Pure; one layer at a time.
#pragma once

#include <cstdint>
#include <vector>

#include "eplb/placement/batch_loads.h"
#include "eplb/placement/node_rule.h"
#include "eplb/placement/placement.h"
#include "eplb/search/component_plan.h"

namespace wideload::eplb {

// Groups of experts onto nodes, as many on each, so that the busiest node of the scenarios is as
// little busy as exchanges of two groups can make it. Errors: as CheckNodeSizes.
NodeRule MakeNodeRule(const BatchLoads& scenarios, const NodeSizes& nodes, int32_t num_ranks,
                      int32_t max_cross_slots);

// Component-aware plans of the nodes side by side, without cross-node slots.
Placement NodePlan(const std::vector<double>& loads, const NodeRule& nodes, int32_t num_slots,
                   int32_t num_ranks, ReplicaRule rule);

}  // namespace wideload::eplb
