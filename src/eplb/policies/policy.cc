#include "eplb/policies/policy.h"

#include <array>
#include <string>

#include "base/error.h"
#include "eplb/placement/keep_slots.h"
#include "eplb/policies/deepseek_policy.h"
#include "eplb/policies/even_policy.h"
#include "eplb/policies/tensorrt_llm_policy.h"
#include "eplb/search/scenario_planner.h"

namespace wideload::eplb {
namespace {

// Added up, in the precision the originals plan in.
std::vector<float> SummedLoads(const PolicyInput& input) {
  const std::vector<double> sum = input.loads.Sum();
  return {sum.begin(), sum.end()};
}

Placement PlanContiguous(const PolicyInput& input) {
  return ContiguousPlacement(input.loads.num_experts, input.num_slots, input.num_ranks);
}

Placement PlanTensorRtLlm(const PolicyInput& input) {
  return TensorRtLlmPlacement(SummedLoads(input), input.num_slots, input.num_ranks);
}

Placement PlanDeepSeek(const PolicyInput& input) {
  return DeepSeekPlacement(SummedLoads(input), {.num_slots = input.num_slots,
                                                .num_groups = input.nodes.num_groups,
                                                .num_nodes = input.nodes.num_nodes,
                                                .num_ranks = input.num_ranks});
}

Placement PlanScenario(const PolicyInput& input) {
  return PlanPlacement(input.loads, {.num_ranks = input.num_ranks,
                                     .num_slots = input.num_slots,
                                     .nodes = input.nodes,
                                     .max_cross_slots = input.max_cross_slots,
                                     .seed = input.seed,
                                     .current = input.fetch_price > 0 ? input.current : nullptr,
                                     .fetch_price = input.fetch_price});
}

Placement PlanEven(const PolicyInput& input) {
  return PlanForEvenSplit(input.loads, {.sizes = {input.num_slots, input.num_ranks},
                                        .nodes = input.nodes,
                                        .max_cross_slots = input.max_cross_slots,
                                        .seed = input.seed,
                                        .current = input.current,
                                        .fetch_price = input.fetch_price});
}

constexpr size_t kGreedy = 1;
constexpr size_t kEven = 3;
constexpr std::array kPolicies = {
    Policy{.name = "contiguous",
           .summary = "experts in order, as without a balancer",
           .plan = PlanContiguous,
           .balances = false,
           .is_of_other_program = true},
    Policy{.name = "tensorrt_llm",
           .summary = "TensorRT-LLM's greedy policy, slot for slot",
           .plan = PlanTensorRtLlm,
           .is_of_other_program = true,
           .plans_without_load = true},
    Policy{.name = "deepseek",
           .summary = "DeepSeek's rebalance_experts, global or hierarchical over nodes",
           .plan = PlanDeepSeek,
           .looks_at_nodes = true,
           .needs_groups_on_nodes = true,
           .is_of_other_program = true,
           .is_compared = false},
    Policy{
        .name = "even",
        .summary = "made for an even split (TensorRT-LLM, vLLM, SGLang), over recorded iterations",
        .plan = PlanEven,
        .looks_at_nodes = true,
        .bounds_cross_slots = true,
        .weighs_fetches = true,
        .searches = true,
        .is_for_even_split = true,
        .is_compared = false},
    Policy{.name = "scenario",
           .summary = "made for the optimal per-batch split, over recorded iterations",
           .plan = PlanScenario,
           .looks_at_nodes = true,
           .bounds_cross_slots = true,
           .weighs_fetches = true,
           .searches = true},
};

// With one batch's worth of loads that searches may plan from: those of no batch where nothing else
// was recorded, equal ones where there is no load at all.
BatchLoads UsableLoads(const BatchLoads& loads) {
  BatchLoads usable = loads.WithLoad();
  if (usable.size() > 0) {
    usable.unbatched = loads.unbatched;
    return usable;
  }
  if (!HasLoad(loads.unbatched)) return EqualLoads(loads.num_experts);
  usable.Add(loads.unbatched);
  return usable;
}

bool IsOfSizes(const Placement& placement, const Placement& other) {
  return placement.num_experts == other.num_experts && placement.num_ranks == other.num_ranks &&
         placement.num_slots() == other.num_slots();
}

}  // namespace

std::span<const Policy> Policies() { return kPolicies; }

const Policy& FindPolicy(std::string_view name) {
  for (const Policy& policy : kPolicies)
    if (policy.name == name) return policy;
  Throw(ErrorKind::kInvalid, "policy is \"{}\"; allowed: {}", name, fmt::join(PolicyNames(), ", "));
}

const Policy& GreedyPolicy() { return kPolicies[kGreedy]; }

const Policy& EvenPolicy() { return kPolicies[kEven]; }

std::vector<std::string> PolicyNames(bool Policy::*property) {
  std::vector<std::string> names;
  for (const Policy& policy : kPolicies)
    if (property == nullptr || policy.*property) names.emplace_back(policy.name);
  return names;
}

Placement PlanLayer(const Policy& policy, const PolicyInput& input) {
  const BatchLoads usable = policy.plans_without_load ? input.loads : UsableLoads(input.loads);
  const Placement planned = policy.plan({.loads = usable,
                                         .num_slots = input.num_slots,
                                         .num_ranks = input.num_ranks,
                                         .nodes = input.nodes,
                                         .max_cross_slots = input.max_cross_slots,
                                         .seed = input.seed,
                                         .current = input.current,
                                         .fetch_price = input.fetch_price});
  if (input.current == nullptr || !IsOfSizes(*input.current, planned)) return planned;
  const int32_t nodes = input.nodes.num_nodes;
  return KeepInPlace(*input.current, planned, nodes == 1 ? 0 : planned.num_ranks / nodes);
}

}  // namespace wideload::eplb
