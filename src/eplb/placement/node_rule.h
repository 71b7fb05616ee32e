// Which slots a placement over nodes may give to which experts: every expert keeps a slot on its
// home node, and a bounded number of slots may hold experts of other nodes. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "eplb/placement/placement.h"

namespace wideload::eplb {

// How ranks are grouped into nodes, and experts into groups that stay together.
struct NodeSizes {
  int32_t num_nodes = 1;   // ranks are spread evenly, node after node
  int32_t num_groups = 1;  // of equally many experts, one after the other; 1: each expert is one
};
// Errors: kInvalid for nodes that do not divide the ranks or are more than experts, groups that do
// not divide the experts or are no multiple of the nodes (one group: experts that the nodes do not
// divide are allowed), several groups on one node.
void CheckNodeSizes(int32_t num_experts, const NodeSizes& nodes, int32_t num_ranks);

struct NodeRule {
  int32_t ranks_per_node = 0;
  std::vector<int32_t> home;  // [num_experts] node; empty: there are no nodes
  int32_t max_cross_slots = 0;

  // Whether the rank is on the expert's home node; only of a rule with homes.
  bool IsHome(int32_t expert, int32_t rank) const {
    return home[static_cast<size_t>(expert)] == rank / ranks_per_node;
  }
};

// The homes that a placement tells: a group's is the node that holds most of its experts, of
// several the one with most slots of them, then the first. The bound is 0. No home for one node.
// Errors: as CheckNodeSizes.
NodeRule HomesOf(const Placement& placement, const NodeSizes& nodes);

// Where the slots of live ranks stand under a rule with homes.
struct NodeSlots {
  int32_t num_crossing = 0;      // slots that hold experts of other nodes
  std::vector<int32_t> at_home;  // [num_experts] slots on the expert's home node
};
// rank_speed [num_ranks]; 0: a dead rank. Empty: all live.
NodeSlots CountNodeSlots(const Placement& placement, const NodeRule& rule,
                         std::span<const double> rank_speed = {});

// The rule whose homes a placement tells, where it keeps that: every expert has a slot at home, and
// no more than max_cross_slots hold experts of other nodes. Errors: as CheckNodeSizes.
std::optional<NodeRule> RuleKeptBy(const Placement& placement, const NodeSizes& nodes,
                                   int32_t max_cross_slots);

}  // namespace wideload::eplb
