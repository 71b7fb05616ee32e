#include "eplb/policies/deepseek_policy.h"

#include <cmath>
#include <numeric>

#include "base/error.h"
#include "eplb/policies/float_sum.h"
#include "eplb/policies/tournament.h"

namespace wideload::eplb {
namespace {

using LowestKey = Tournament<TieWinner::kLowestIndex>;

// position[i] = pack * items per pack + place within the pack.
std::vector<int32_t> PackBalanced(std::span<const float> weights, int32_t num_packs) {
  const auto per_pack = static_cast<int32_t>(weights.size()) / num_packs;
  std::vector<int32_t> position(weights.size());
  if (per_pack == 1) {
    std::iota(position.begin(), position.end(), 0);
    return position;
  }
  std::vector<uint64_t> keys(weights.size());
  for (size_t i = 0; i < keys.size(); ++i) keys[i] = LargestFirst(weights[i]);
  std::vector<float> pack_weight(static_cast<size_t>(num_packs), 0);
  std::vector<int32_t> used(static_cast<size_t>(num_packs), 0);
  LowestKey lightest(std::vector<uint64_t>(pack_weight.size(), SmallestFirst(0)));
  for (const int32_t item : SortedByKey(keys)) {
    const int32_t pack = lightest.Winner();
    const auto p = static_cast<size_t>(pack);
    position[static_cast<size_t>(item)] = pack * per_pack + used[p]++;
    pack_weight[p] += weights[static_cast<size_t>(item)];
    lightest.Change(pack, used[p] == per_pack ? LowestKey::kLast : SmallestFirst(pack_weight[p]));
  }
  return position;
}

struct Replicas {
  std::vector<int32_t> item_expert;   // [num_items] which expert the item is a copy of
  std::vector<int32_t> item_replica;  // [num_items] the how manieth copy, from 0
  std::vector<int32_t> counts;        // [num_experts]
};

// One item per expert, then each further one to the highest weight per copy.
Replicas Replicate(std::span<const float> weights, int32_t num_items) {
  Replicas result;
  result.counts.assign(weights.size(), 1);
  result.item_expert.reserve(static_cast<size_t>(num_items));
  result.item_replica.reserve(static_cast<size_t>(num_items));
  result.item_expert.resize(weights.size());
  std::iota(result.item_expert.begin(), result.item_expert.end(), 0);
  result.item_replica.assign(weights.size(), 0);
  std::vector<uint64_t> keys(weights.size());
  for (size_t e = 0; e < keys.size(); ++e) keys[e] = LargestFirst(weights[e]);
  LowestKey hottest(keys);
  while (std::ssize(result.item_expert) < num_items) {
    const int32_t expert = hottest.Winner();
    const auto e = static_cast<size_t>(expert);
    result.item_expert.push_back(expert);
    result.item_replica.push_back(result.counts[e]++);
    hottest.Change(expert, LargestFirst(weights[e] / static_cast<float>(result.counts[e])));
  }
  return result;
}

// order[p] = the expert at place p, once groups are packed onto nodes: node after node, the groups
// of a node in the order they were packed.
std::vector<int32_t> OrderByNode(std::span<const float> loads, const DeepSeekSizes& sizes) {
  const size_t group_size = loads.size() / static_cast<size_t>(sizes.num_groups);
  std::vector<float> group_loads(static_cast<size_t>(sizes.num_groups));
  for (size_t g = 0; g < group_loads.size(); ++g)
    group_loads[g] = PyTorchSum(loads.subspan(g * group_size, group_size));
  const std::vector<int32_t> position = PackBalanced(group_loads, sizes.num_nodes);
  std::vector<int32_t> order(loads.size());
  for (size_t g = 0; g < group_loads.size(); ++g)
    for (size_t i = 0; i < group_size; ++i)
      order[static_cast<size_t>(position[g]) * group_size + i] =
          static_cast<int32_t>(g * group_size + i);
  return order;
}

// Replicates and packs the experts of one node, whose slots start at first_slot.
void PlanNode(std::span<const float> loads, std::span<const int32_t> experts, int32_t first_slot,
              const DeepSeekSizes& sizes, DeepSeekPlan& plan) {
  std::vector<float> weights;
  for (const int32_t expert : experts) weights.push_back(loads[static_cast<size_t>(expert)]);
  const Replicas replicas = Replicate(weights, sizes.num_slots / sizes.num_nodes);
  std::vector<float> item_weights;
  for (const int32_t local : replicas.item_expert) {
    const auto e = static_cast<size_t>(local);
    item_weights.push_back(weights[e] / static_cast<float>(replicas.counts[e]));
  }
  const std::vector<int32_t> position =
      PackBalanced(item_weights, sizes.num_ranks / sizes.num_nodes);
  for (size_t e = 0; e < experts.size(); ++e)
    plan.replicas[static_cast<size_t>(experts[e])] = replicas.counts[e];
  for (size_t i = 0; i < position.size(); ++i) {
    const auto slot = static_cast<size_t>(first_slot) + static_cast<size_t>(position[i]);
    plan.slot_expert[slot] = experts[static_cast<size_t>(replicas.item_expert[i])];
    plan.slot_replica[slot] = replicas.item_replica[i];
  }
}

void CheckArguments(std::span<const float> loads, const DeepSeekSizes& sizes) {
  ValidateSizes(static_cast<int32_t>(loads.size()), sizes.num_slots, sizes.num_ranks,
                "DeepSeek placement");
  if (sizes.num_groups < 1 || std::ssize(loads) % sizes.num_groups != 0)
    Throw(ErrorKind::kInvalid, "num_groups is {}; it must divide {} (experts)", sizes.num_groups,
          loads.size());
  if (sizes.num_nodes < 1 || sizes.num_ranks % sizes.num_nodes != 0)
    Throw(ErrorKind::kInvalid, "num_nodes is {}; it must divide {} (ranks)", sizes.num_nodes,
          sizes.num_ranks);
  for (size_t e = 0; e < loads.size(); ++e)
    if (!(loads[e] >= 0) || std::isinf(loads[e]))
      Throw(ErrorKind::kInvalid, "the load of expert {} is {}; it must be finite and at least 0", e,
            loads[e]);
}

}  // namespace

DeepSeekPlan DeepSeekRebalance(std::span<const float> loads, const DeepSeekSizes& requested) {
  DeepSeekSizes sizes = requested;
  if (sizes.num_nodes > 0 && sizes.num_groups % sizes.num_nodes != 0)
    sizes.num_groups = sizes.num_nodes = 1;
  CheckArguments(loads, sizes);
  DeepSeekPlan plan;
  plan.slot_expert.resize(static_cast<size_t>(sizes.num_slots));
  plan.slot_replica.resize(plan.slot_expert.size());
  plan.replicas.resize(loads.size());
  const std::vector<int32_t> order = OrderByNode(loads, sizes);
  const size_t per_node = loads.size() / static_cast<size_t>(sizes.num_nodes);
  for (int32_t node = 0; node < sizes.num_nodes; ++node)
    PlanNode(loads, std::span(order).subspan(static_cast<size_t>(node) * per_node, per_node),
             node * (sizes.num_slots / sizes.num_nodes), sizes, plan);
  return plan;
}

Placement DeepSeekPlacement(std::span<const float> loads, const DeepSeekSizes& sizes) {
  Placement placement{static_cast<int32_t>(loads.size()), sizes.num_ranks, {}};
  for (const int32_t expert : DeepSeekRebalance(loads, sizes).slot_expert)
    placement.slot_expert.emplace_back(expert);
  return placement;
}

}  // namespace wideload::eplb
