#include "eplb/placement/node_rule.h"

#include <algorithm>
#include <tuple>

#include "base/error.h"
#include "eplb/placement/index.h"

namespace wideload::eplb {
namespace {

// Slots of each expert on each node: [expert * num_nodes + node].
std::vector<int32_t> SlotsOnNodes(const Placement& placement, int32_t num_nodes) {
  const int32_t ranks_per_node = placement.num_ranks / num_nodes;
  std::vector<int32_t> slots(Index(placement.num_experts) * Index(num_nodes), 0);
  for (int32_t s = 0; s < placement.num_slots(); ++s) {
    const int32_t node = placement.RankOf(SlotId(s)).value / ranks_per_node;
    const int32_t expert = placement.slot_expert[Index(s)].value;
    ++slots[Index(expert) * Index(num_nodes) + Index(node)];
  }
  return slots;
}

}  // namespace

void CheckNodeSizes(int32_t num_experts, const NodeSizes& nodes, int32_t num_ranks) {
  if (nodes.num_nodes < 1 || num_ranks % nodes.num_nodes != 0)
    Throw(ErrorKind::kInvalid, "num_nodes is {}; it must divide {} (ranks)", nodes.num_nodes,
          num_ranks);
  if (nodes.num_nodes > num_experts)
    Throw(ErrorKind::kInvalid, "num_nodes is {}; there are only {} experts", nodes.num_nodes,
          num_experts);
  if (nodes.num_groups < 1 || num_experts % nodes.num_groups != 0)
    Throw(ErrorKind::kInvalid, "num_groups is {}; it must divide {} (experts)", nodes.num_groups,
          num_experts);
  if (nodes.num_groups > 1 && (nodes.num_nodes == 1 || nodes.num_groups % nodes.num_nodes != 0))
    Throw(ErrorKind::kInvalid,
          "num_groups is {}; it must be 1, or a multiple of several nodes ({})", nodes.num_groups,
          nodes.num_nodes);
}

NodeRule HomesOf(const Placement& placement, const NodeSizes& nodes) {
  CheckNodeSizes(placement.num_experts, nodes, placement.num_ranks);
  if (nodes.num_nodes == 1) return {};
  const std::vector<int32_t> slots = SlotsOnNodes(placement, nodes.num_nodes);
  const int32_t per_group = nodes.num_groups == 1 ? 1 : placement.num_experts / nodes.num_groups;
  NodeRule rule{placement.num_ranks / nodes.num_nodes, {}, 0};
  for (int32_t first = 0; first < placement.num_experts; first += per_group) {
    std::tuple<int32_t, int32_t, int32_t> best{-1, 0, 0};  // experts, slots, -node
    for (int32_t node = 0; node < nodes.num_nodes; ++node) {
      int32_t num_experts = 0;
      int32_t num_slots = 0;
      for (int32_t e = first; e < first + per_group; ++e) {
        const int32_t held = slots[Index(e) * Index(nodes.num_nodes) + Index(node)];
        num_experts += held > 0;
        num_slots += held;
      }
      best = std::max(best, {num_experts, num_slots, -node});
    }
    rule.home.insert(rule.home.end(), Index(per_group), -std::get<2>(best));
  }
  return rule;
}

NodeSlots CountNodeSlots(const Placement& placement, const NodeRule& rule,
                         std::span<const double> rank_speed) {
  NodeSlots count{0, std::vector<int32_t>(Index(placement.num_experts), 0)};
  for (int32_t s = 0; s < placement.num_slots(); ++s) {
    const int32_t rank = placement.RankOf(SlotId(s)).value;
    if (!rank_speed.empty() && rank_speed[Index(rank)] <= 0) continue;
    const int32_t expert = placement.slot_expert[Index(s)].value;
    if (rule.IsHome(expert, rank))
      ++count.at_home[Index(expert)];
    else
      ++count.num_crossing;
  }
  return count;
}

std::optional<NodeRule> RuleKeptBy(const Placement& placement, const NodeSizes& nodes,
                                   int32_t max_cross_slots) {
  NodeRule rule = HomesOf(placement, nodes);
  if (rule.home.empty()) return rule;
  rule.max_cross_slots = max_cross_slots;
  const NodeSlots slots = CountNodeSlots(placement, rule);
  if (slots.num_crossing > max_cross_slots) return std::nullopt;
  if (std::count(slots.at_home.begin(), slots.at_home.end(), 0) > 0) return std::nullopt;
  return rule;
}

}  // namespace wideload::eplb
