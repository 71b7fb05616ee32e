#include "eplb/policy.h"

#include <algorithm>
#include <array>
#include <string>

#include "base/error.h"
#include "eplb/deepseek_policy.h"
#include "eplb/scenario_planner.h"
#include "eplb/tensorrt_llm_policy.h"

namespace wideload::eplb {
namespace {

std::vector<float> SinglePrecision(std::span<const double> loads) {
  std::vector<float> result(loads.size());
  std::transform(loads.begin(), loads.end(), result.begin(),
                 [](double load) { return static_cast<float>(load); });
  return result;
}

Placement PlanContiguous(const PolicyInput& input) {
  return ContiguousPlacement(static_cast<int32_t>(input.loads.size()), input.num_slots,
                             input.num_ranks);
}

Placement PlanTensorRtLlm(const PolicyInput& input) {
  return TensorRtLlmPlacement(SinglePrecision(input.loads), input.num_slots, input.num_ranks);
}

// Without any load every expert counts the same: the published function would give all spare slots
// to one expert.
Placement PlanDeepSeek(const PolicyInput& input) {
  std::vector<float> loads = SinglePrecision(input.loads);
  if (std::all_of(loads.begin(), loads.end(), [](float load) { return load == 0; }))
    std::fill(loads.begin(), loads.end(), 1.0F);
  return DeepSeekPlacement(loads, {.num_slots = input.num_slots,
                                   .num_groups = input.num_groups,
                                   .num_nodes = input.num_nodes,
                                   .num_ranks = input.num_ranks});
}

Placement PlanScenario(const PolicyInput& input) {
  if (input.num_nodes > 1)
    Throw(ErrorKind::kUnsupported, "policy scenario with {} nodes; it plans for 1 node only",
          input.num_nodes);
  Scenarios scenarios{.num_experts = static_cast<int32_t>(input.loads.size())};
  for (const std::vector<double>& scenario : input.scenarios) {
    const bool has_load =
        std::any_of(scenario.begin(), scenario.end(), [](double n) { return n > 0; });
    if (has_load) scenarios.Add(scenario);
  }
  if (scenarios.size() == 0) scenarios.Add(input.loads);
  return PlanPlacement(
      scenarios, {.num_ranks = input.num_ranks, .num_slots = input.num_slots, .seed = input.seed});
}

constexpr std::array kPolicies = {
    Policy{"contiguous", "experts in order, as without a balancer", PlanContiguous},
    Policy{"tensorrt_llm", "TensorRT-LLM's greedy policy, slot for slot", PlanTensorRtLlm},
    Policy{"deepseek", "DeepSeek's rebalance_experts, global or hierarchical over nodes",
           PlanDeepSeek},
    Policy{"scenario", "wideload's own: made for the optimal split of each recorded batch",
           PlanScenario},
};

}  // namespace

std::span<const Policy> Policies() { return kPolicies; }

const Policy& FindPolicy(std::string_view name) {
  std::string allowed;
  for (const Policy& policy : kPolicies) {
    if (policy.name == name) return policy;
    allowed += (allowed.empty() ? "" : ", ") + std::string(policy.name);
  }
  Throw(ErrorKind::kInvalid, "policy is \"{}\"; allowed: {}", name, allowed);
}

}  // namespace wideload::eplb
