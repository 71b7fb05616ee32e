#include "eplb/policies/policy.h"

#include <algorithm>
#include <array>
#include <string>

#include "base/error.h"
#include "eplb/policies/deepseek_policy.h"
#include "eplb/policies/tensorrt_llm_policy.h"
#include "eplb/search/scenario_planner.h"

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

// With `loads` alone the variations of this one vector are all there is to plan for. A layer
// without load is placed as if every expert counted the same.
Placement PlanScenario(const PolicyInput& input) {
  BatchLoads scenarios{static_cast<int32_t>(input.loads.size()), {}, {}};
  for (const std::vector<double>& scenario : input.scenarios) scenarios.Add(scenario);
  const std::vector<double> mean = scenarios.Mean();
  const auto positive = [](double load) { return load > 0; };
  if (std::none_of(mean.begin(), mean.end(), positive)) {
    scenarios = {scenarios.num_experts, {}, {}};
    const bool any = std::any_of(input.loads.begin(), input.loads.end(), positive);
    scenarios.Add(any ? std::vector<double>(input.loads.begin(), input.loads.end())
                      : std::vector<double>(input.loads.size(), 1.0));
  }
  PlanOptions options;
  options.num_ranks = input.num_ranks;
  options.num_slots = input.num_slots;
  options.nodes = {input.num_nodes, input.num_groups};
  options.max_cross_slots = input.max_cross_slots;
  options.seed = input.seed;
  options.current = input.previous;
  options.fetch_price = input.fetch_price;
  return PlanPlacement(scenarios, options);
}

constexpr std::array kPolicies = {
    Policy{"contiguous", "experts in order, as without a balancer", false, false, false,
           PlanContiguous},
    Policy{"tensorrt_llm", "TensorRT-LLM's greedy policy, slot for slot", false, false, false,
           PlanTensorRtLlm},
    Policy{"deepseek", "DeepSeek's rebalance_experts, global or hierarchical over nodes", true,
           false, false, PlanDeepSeek},
    Policy{"scenario", "made for the optimal per-batch split, over recorded iterations", true, true,
           true, PlanScenario},
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
