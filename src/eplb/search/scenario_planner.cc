#include "eplb/search/scenario_planner.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <utility>

#include "base/error.h"
#include "eplb/placement/index.h"
#include "eplb/placement/keep_slots.h"
#include "eplb/search/component_plan.h"
#include "eplb/search/plan_search.h"
#include "eplb/search/vary_batches.h"
#include "eplb/split/water_filling.h"

namespace wideload::eplb {
namespace {

// Work of a search, see SearchOptions: keeps a plan below 60 ms, and its time proportional to ranks
// beyond kManyRanks. On few ranks more of the counted work is done in a millisecond.
constexpr int64_t kMaxWork = 35'000'000;
constexpr int64_t kMaxWorkOnFewRanks = 50'000'000;
constexpr int32_t kFewRanks = 16;
constexpr int32_t kManyRanks = 64;
// BatchLoads x ranks x slots that this work suffices for. More scenarios make the search know less
// of them by heart, until it has no time to look for the best placement.
constexpr int64_t kScenarioRoom = 330'000;
// A search has come to its end when so many proposals in a row were of no use.
constexpr int64_t kMaxIdleMoves = 10000;

// A search whose objective is below this has no slope left: it goes on with variations twice as
// wide added, so often; the narrow ones weigh more, so that they stay solved.
constexpr double kSolved = 0.002;
constexpr int kMaxWidenings = 2;
constexpr double kNarrowWeight = 8;
// The part of the work, one in so many, that goes from each of two starts.
constexpr int64_t kStartShare = 4;

int32_t NumScenarios(const PlanOptions& options) {
  if (options.num_scenarios > 0) return options.num_scenarios;
  const int64_t affordable =
      kScenarioRoom / (int64_t{options.num_ranks} * options.num_slots) / kLanes * kLanes;
  const int64_t least = options.num_ranks < kManyRanks ? 128 : 64;
  return static_cast<int32_t>(std::clamp<int64_t>(affordable, least, 1024));
}

int64_t WorkFor(int32_t num_ranks) {
  if (num_ranks <= kFewRanks) return kMaxWorkOnFewRanks;
  return kMaxWork * std::max(num_ranks, kManyRanks) / kManyRanks;
}

// The constructive plan for all scenarios that is the better one on those recorded.
Placement StartPlan(const BatchLoads& varied, const BatchLoads& recorded,
                    const PlanOptions& options, const NodeRule& nodes) {
  const std::vector<double> mean = varied.Mean();
  const auto plan = [&](ReplicaRule rule) {
    return nodes.home.empty() ? ComponentPlan(mean, options.num_slots, options.num_ranks, rule)
                              : NodePlan(mean, nodes, options.num_slots, options.num_ranks, rule);
  };
  Placement best = plan(ReplicaRule::kHighestPerSlot);
  Placement other = plan(ReplicaRule::kHottestTwice);
  if (MeanOptimalImbalance(other, recorded) < MeanOptimalImbalance(best, recorded)) return other;
  return best;
}

// Variations as usual, which count most, and as many of another width.
BatchLoads NarrowAndWide(const BatchLoads& recorded, const PlanOptions& options, double width) {
  const int32_t half = std::max(1, NumScenarios(options) / 2);
  const BatchLoads narrow = VaryBatches(recorded, half, options.variation, options.seed);
  const BatchLoads wide = VaryBatches(recorded, half, width, options.seed + 1);
  BatchLoads both{recorded.num_experts, {}, {}};
  for (int32_t i = 0; i < half; ++i) {
    both.Add(narrow.At(i), kNarrowWeight * narrow.weights[Index(i)]);
    both.Add(wide.At(i), wide.weights[Index(i)]);
  }
  return both;
}

// A placement on its way to a plan, and the rule it keeps.
struct Draft {
  Placement placement;
  NodeRule nodes;
};

// Makes `draft` better for the scenarios within `max_work`, and takes what it needed off
// `work_left`. Returns the objective.
double Search(const BatchLoads& scenarios, const PlanOptions& options, int64_t max_work,
              int64_t& work_left, Draft& draft) {
  PlanSearch search(scenarios, draft.placement,
                    {.max_moves = options.max_moves,
                     .max_idle_moves = kMaxIdleMoves,
                     .max_work = max_work,
                     .seed = options.seed,
                     .fetch_price = options.fetch_price,
                     .current = options.current,
                     .tail = options.tail,
                     .nodes = draft.nodes});
  search.Run();
  draft.placement = search.placement();
  work_left -= search.work();
  return search.objective();
}

// Searches for `varied`, then, as long as they are solved, for wider variations, too.
void SearchEverWider(BatchLoads varied, const BatchLoads& recorded, const PlanOptions& options,
                     int64_t& work_left, Draft& draft) {
  double variation = options.variation;
  for (int widenings = 0; Search(varied, options, work_left, work_left, draft) < kSolved;
       ++widenings) {
    if (widenings == kMaxWidenings || work_left <= 0) break;
    variation *= 2;
    varied = NarrowAndWide(recorded, options, variation);
  }
}

// A search hardly takes back the fetches of a plan made anew: a part of the work goes from there, a
// part from what the slots hold now, and what is better then, price included, goes on.
void ChooseStart(const BatchLoads& scenarios, const PlanOptions& options, int32_t max_cross_slots,
                 int64_t& work_left, Draft& draft) {
  std::optional<NodeRule> rule = RuleKeptBy(*options.current, options.nodes, max_cross_slots);
  if (!rule) return;
  Draft current{*options.current, std::move(*rule)};
  const int64_t work = work_left / kStartShare;
  const double anew = Search(scenarios, options, work, work_left, draft);
  if (Search(scenarios, options, work, work_left, current) <= anew) draft = std::move(current);
}

}  // namespace

Placement PlanPlacement(const BatchLoads& scenarios, const PlanOptions& options) {
  ValidateSizes(scenarios.num_experts, options.num_slots, options.num_ranks, "scenario plan");
  CheckFetchPrice(options.fetch_price, options.current,
                  {scenarios.num_experts, {options.num_slots, options.num_ranks}, "scenario plan"});
  const BatchLoads varied =
      VaryBatches(scenarios, NumScenarios(options), options.variation, options.seed);
  if (varied.size() == 0)
    Throw(ErrorKind::kInvalid, "scenario plan: {} scenarios are given, none with load",
          scenarios.size());
  const int32_t cross_slots =
      options.max_cross_slots < 0 ? options.nodes.num_nodes : options.max_cross_slots;
  Draft draft{{}, MakeNodeRule(varied, options.nodes, options.num_ranks, cross_slots)};
  draft.placement = StartPlan(varied, scenarios, options, draft.nodes);
  const int32_t ranks_per_node = draft.nodes.ranks_per_node;
  if (options.current != nullptr)
    draft.placement = RelabelRanks(*options.current, draft.placement, ranks_per_node);
  int64_t work_left = WorkFor(options.num_ranks);
  if (options.fetch_price > 0) ChooseStart(varied, options, cross_slots, work_left, draft);
  if (options.max_moves > 0) SearchEverWider(varied, scenarios, options, work_left, draft);
  return draft.placement;
}

}  // namespace wideload::eplb
