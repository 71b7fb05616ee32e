#include "rebalance/tensorrt_llm_planner.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "eplb/policies/tensorrt_llm_policy.h"

namespace wideload::rebalance {
namespace {

constexpr float kDecay = 0.95F;

}  // namespace

std::vector<std::vector<int32_t>> UpdateGroups(int32_t num_layers, int32_t layer_updates_per_iter) {
  const int32_t num_groups = (num_layers + layer_updates_per_iter - 1) / layer_updates_per_iter;
  std::vector<std::vector<int32_t>> groups(static_cast<size_t>(num_groups));
  for (int32_t layer = 0; layer < num_layers; ++layer)
    groups[static_cast<size_t>(layer % num_groups)].push_back(layer);
  if (groups.front().size() == groups.back().size()) groups.emplace_back();
  return groups;
}

TensorRtLlmPlanner::TensorRtLlmPlanner(int32_t layer_updates_per_iter,
                                       std::vector<eplb::Placement> start)
    : now_(std::move(start)),
      groups_(UpdateGroups(static_cast<int32_t>(now_.size()), layer_updates_per_iter)),
      loads_(now_.size(), std::vector<float>(static_cast<size_t>(now_[0].num_experts))) {}

std::vector<LayerChange> TensorRtLlmPlanner::Plan(const IterationCounts& counts) {
  if (counts.is_warmup) return {};
  const int32_t* count = counts.routed_counts.data();
  for (std::vector<float>& loads : loads_)
    for (float& load : loads) load = kDecay * load + static_cast<float>(*count++);
  std::vector<LayerChange> changes;
  std::vector<int32_t> all(now_.size());
  std::iota(all.begin(), all.end(), 0);
  for (const int32_t layer : counts.is_asked ? all : groups_[next_group_]) {
    std::vector<float>& loads = loads_[static_cast<size_t>(layer)];
    eplb::Placement& now = now_[static_cast<size_t>(layer)];
    eplb::Placement placement = eplb::TensorRtLlmPlacement(loads, now.num_slots(), now.num_ranks);
    std::fill(loads.begin(), loads.end(), 0.0F);
    if (placement == now) continue;
    now = placement;
    changes.push_back({layer, std::move(placement)});
  }
  next_group_ = (next_group_ + 1) % groups_.size();
  return changes;
}

}  // namespace wideload::rebalance
