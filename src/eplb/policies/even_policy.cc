#include "eplb/policies/even_policy.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "base/error.h"
#include "eplb/placement/keep_slots.h"
#include "eplb/policies/tensorrt_llm_policy.h"
#include "eplb/search/component_plan.h"
#include "eplb/search/even_model.h"
#include "eplb/search/even_search.h"
#include "eplb/search/node_plan.h"

namespace wideload::eplb {
namespace {

// Proposals x blocks of batches that take about 40 ms with 512-bit vectors, and the proposals
// beyond which hardly anything is gained.
constexpr int64_t kProposalRoom = 400'000;
constexpr int64_t kMaxProposals = 300'000;
// Temperature at the start, in objective / ranks: the fewer proposals a slot has, the colder, or
// the search would not have come back from the heat when it ends.
constexpr double kStartTemperature = 0.2;
constexpr double kStartTemperatureByProposals = 4e-5;  // x proposals / slots

// A placement on its way to a plan, and the rule it keeps.
struct EvenDraft {
  Placement placement;
  NodeRule nodes;
};

EvenDraft StartAnew(const BatchLoads& recorded, const EvenPlanOptions& options,
                    int32_t cross_slots) {
  EvenDraft draft;
  if (options.nodes.num_nodes > 1) {
    draft.nodes =
        MakeNodeRule(recorded.WithLoad(), options.nodes, options.sizes.num_ranks, cross_slots);
    draft.placement = NodePlan(recorded.Mean(), draft.nodes, options.sizes.num_slots,
                               options.sizes.num_ranks, ReplicaRule::kHighestPerSlot);
  } else {
    CheckNodeSizes(recorded.num_experts, options.nodes, options.sizes.num_ranks);
    const std::vector<double> sum = recorded.Sum();
    draft.placement = TensorRtLlmPlacement(std::vector<float>(sum.begin(), sum.end()),
                                           options.sizes.num_slots, options.sizes.num_ranks);
  }
  if (options.fetch_price > 0)
    draft.placement = RelabelRanks(*options.current, draft.placement, draft.nodes.ranks_per_node);
  return draft;
}

// Makes `draft` better and returns the objective.
double Anneal(const EvenModel& model, const EvenPlanOptions& options, int64_t share,
              EvenDraft& draft) {
  EvenSearch search(model, draft.placement,
                    {.seed = options.seed,
                     .fetch_price = options.fetch_price,
                     .current = options.fetch_price > 0 ? options.current : nullptr,
                     .nodes = draft.nodes});
  const int64_t num_blocks = (model.num_batches + kLanes - 1) / kLanes;
  const int64_t proposals =
      (options.proposals > 0 ? options.proposals
                             : std::min(kMaxProposals, kProposalRoom / num_blocks)) /
      share;
  search.Anneal(
      {.proposals = proposals,
       .start_temperature = std::min(kStartTemperature, kStartTemperatureByProposals *
                                                            static_cast<double>(proposals) /
                                                            options.sizes.num_slots)});
  draft.placement = search.placement();
  return search.objective();
}

}  // namespace

Placement PlanForEvenSplit(const BatchLoads& recorded, const EvenPlanOptions& options) {
  ValidateSizes(recorded.num_experts, options.sizes.num_slots, options.sizes.num_ranks,
                "even plan");
  CheckFetchPrice(options.fetch_price, options.current,
                  {recorded.num_experts, options.sizes, "even plan"});
  const EvenModel model = MakeEvenModel(recorded, options.sizes.num_ranks);
  const int32_t cross_slots =
      options.max_cross_slots < 0 ? options.nodes.num_nodes : options.max_cross_slots;
  EvenDraft draft = StartAnew(recorded, options, cross_slots);
  std::optional<NodeRule> rule_now;
  if (options.fetch_price > 0) rule_now = RuleKeptBy(*options.current, options.nodes, cross_slots);
  if (!rule_now) {
    Anneal(model, options, 1, draft);
    return draft.placement;
  }
  // A search hardly takes back the fetches of a plan made anew: half of the time from each start.
  EvenDraft kept{*options.current, std::move(*rule_now)};
  const double anew = Anneal(model, options, 2, draft);
  return Anneal(model, options, 2, kept) <= anew ? kept.placement : draft.placement;
}

}  // namespace wideload::eplb
