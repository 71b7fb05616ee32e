#include "eplb/search/node_plan.h"

#include <algorithm>
#include <numeric>
#include <span>
#include <utility>

#include "eplb/placement/index.h"

namespace wideload::eplb {
namespace {

// An exchange pass looks at all pairs; more groups than this pack well without one.
constexpr int32_t kMaxExchangedGroups = 64;

// Loads of groups, in every scenario a part of 1.
class GroupPacking {
 public:
  GroupPacking(const BatchLoads& scenarios, int32_t num_groups, int32_t num_nodes)
      : num_groups_(num_groups),
        num_nodes_(num_nodes),
        load_(Index(scenarios.size()) * Index(num_groups)),
        node_load_(Index(scenarios.size()) * Index(num_nodes)),
        mean_(Index(num_groups), 0.0),
        node_(Index(num_groups), -1) {
    const auto per_group = Index(scenarios.num_experts / num_groups);
    for (int32_t k = 0; k < scenarios.size(); ++k) {
      const std::span<const double> load = scenarios.At(k);
      const double sum = std::accumulate(load.begin(), load.end(), 0.0);
      if (sum <= 0) continue;
      for (size_t e = 0; e < load.size(); ++e) {
        load_[Index(k) * Index(num_groups) + e / per_group] += load[e] / sum;
        mean_[e / per_group] += load[e] / sum;
      }
    }
  }

  // The heaviest group first, to the lightest node that has a place.
  void PackGreedily() {
    std::vector<int32_t> order(Index(num_groups_));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [this](int32_t a, int32_t b) { return mean_[Index(a)] > mean_[Index(b)]; });
    std::vector<double> sum(Index(num_nodes_), 0.0);
    std::vector<int32_t> used(Index(num_nodes_), 0);
    const int32_t places = (num_groups_ + num_nodes_ - 1) / num_nodes_;
    for (const int32_t group : order) {
      int32_t best = -1;
      const auto filled = [&](int32_t n) { return std::pair(sum[Index(n)], used[Index(n)]); };
      for (int32_t n = 0; n < num_nodes_; ++n)
        if (used[Index(n)] < places && (best < 0 || filled(n) < filled(best))) best = n;
      Move(group, best);
      sum[Index(best)] += mean_[Index(group)];
      ++used[Index(best)];
    }
  }

  // Exchanges two groups as long as that lowers the busiest node, mean over scenarios.
  void Exchange() {
    double cost = Cost();
    for (bool improved = true; improved;) {
      improved = false;
      for (int32_t a = 0; a < num_groups_; ++a)
        for (int32_t b = a + 1; b < num_groups_; ++b) {
          const int32_t node_a = node_[Index(a)];
          const int32_t node_b = node_[Index(b)];
          if (node_a == node_b) continue;
          Move(a, node_b);
          Move(b, node_a);
          const double exchanged = Cost();
          if (exchanged < cost - kRounding) {
            cost = exchanged;
            improved = true;
            continue;
          }
          Move(a, node_a);
          Move(b, node_b);
        }
    }
  }

  int32_t NodeOf(int32_t group) const { return node_[Index(group)]; }

 private:
  static constexpr double kRounding = 1e-9;

  void Move(int32_t group, int32_t node) {
    const int32_t from = std::exchange(node_[Index(group)], node);
    for (size_t k = 0; k * Index(num_groups_) < load_.size(); ++k) {
      const double load = load_[k * Index(num_groups_) + Index(group)];
      if (from >= 0) node_load_[k * Index(num_nodes_) + Index(from)] -= load;
      node_load_[k * Index(num_nodes_) + Index(node)] += load;
    }
  }

  double Cost() const {
    double cost = 0;
    for (size_t begin = 0; begin < node_load_.size(); begin += Index(num_nodes_)) {
      const auto first = node_load_.begin() + static_cast<std::ptrdiff_t>(begin);
      cost += *std::max_element(first, first + num_nodes_);
    }
    return cost;
  }

  int32_t num_groups_;
  int32_t num_nodes_;
  std::vector<double> load_;       // [num_scenarios * num_groups]
  std::vector<double> node_load_;  // [num_scenarios * num_nodes]
  std::vector<double> mean_;       // [num_groups] summed over scenarios
  std::vector<int32_t> node_;      // [num_groups]
};

}  // namespace

NodeRule MakeNodeRule(const BatchLoads& scenarios, const NodeSizes& nodes, int32_t num_ranks,
                      int32_t max_cross_slots) {
  CheckNodeSizes(scenarios.num_experts, nodes, num_ranks);
  if (nodes.num_nodes == 1) return {};
  const int32_t num_groups = nodes.num_groups == 1 ? scenarios.num_experts : nodes.num_groups;
  GroupPacking packing(scenarios, num_groups, nodes.num_nodes);
  packing.PackGreedily();
  if (num_groups <= kMaxExchangedGroups) packing.Exchange();
  NodeRule rule{num_ranks / nodes.num_nodes, {}, max_cross_slots};
  for (int32_t e = 0; e < scenarios.num_experts; ++e)
    rule.home.push_back(packing.NodeOf(e / (scenarios.num_experts / num_groups)));
  return rule;
}

Placement NodePlan(const std::vector<double>& loads, const NodeRule& nodes, int32_t num_slots,
                   int32_t num_ranks, ReplicaRule rule) {
  Placement plan{static_cast<int32_t>(loads.size()), num_ranks, {}};
  const int32_t num_nodes = num_ranks / nodes.ranks_per_node;
  for (int32_t node = 0; node < num_nodes; ++node) {
    std::vector<int32_t> experts;
    std::vector<double> own;
    for (int32_t e = 0; e < plan.num_experts; ++e) {
      if (nodes.home[Index(e)] != node) continue;
      experts.push_back(e);
      own.push_back(loads[Index(e)]);
    }
    for (const ExpertId local :
         ComponentPlan(own, num_slots / num_nodes, nodes.ranks_per_node, rule).slot_expert)
      plan.slot_expert.emplace_back(experts[Index(local.value)]);
  }
  return plan;
}

}  // namespace wideload::eplb
