// Plans over nodes: the experts of a router's group share a home node and every expert keeps a slot
// there; a bounded number of slots may hold experts of other nodes, and only these move load
// between nodes. Pure; one layer at a time.
#pragma once

#include <cstdint>
#include <vector>

#include "eplb/component_plan.h"
#include "eplb/placement.h"
#include "eplb/scenario.h"

namespace wideload::eplb {

struct NodeSizes {
  int32_t num_nodes = 1;   // ranks are spread evenly, node after node
  int32_t num_groups = 1;  // of equally many experts, one after the other; 1: each expert is one
};

// Which slots a placement may give to which experts.
struct NodeRule {
  int32_t ranks_per_node = 0;
  std::vector<int32_t> home;  // [num_experts] node; empty: there are no nodes
  int32_t max_cross_slots = 0;

  bool IsHome(int32_t expert, int32_t rank) const {
    return home[static_cast<size_t>(expert)] == rank / ranks_per_node;
  }
};

// Groups of experts onto nodes, as many on each, so that the busiest node of the scenarios is as
// little busy as exchanges of two groups can make it. Errors: kInvalid for nodes that do not divide
// the ranks or are more than experts, groups that do not divide the experts or are no multiple of
// the nodes (one group: experts that the nodes do not divide are allowed), several groups on one
// node.
NodeRule MakeNodeRule(const Scenarios& scenarios, const NodeSizes& nodes, int32_t num_ranks,
                      int32_t max_cross_slots);

// Component-aware plans of the nodes side by side, without cross-node slots.
Placement NodePlan(const std::vector<double>& loads, const NodeRule& nodes, int32_t num_slots,
                   int32_t num_ranks, ReplicaRule rule);

}  // namespace wideload::eplb
