#include "eplb/search/repair.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "eplb/placement/even_split.h"
#include "eplb/placement/index.h"
#include "eplb/placement/keep_slots.h"
#include "eplb/search/even_repair.h"
#include "eplb/search/plan_search.h"
#include "eplb/search/scenario_planner.h"
#include "eplb/search/target_repair.h"
#include "eplb/split/water_filling.h"

namespace wideload::eplb {
namespace {

constexpr int kIdleSteps = 6;
// Moves x ranks x slots that a step has time for.
constexpr int64_t kRepairRoom = 5'000'000;

// More vectors than this change a repair little and cost time.
constexpr int32_t kMaxScenarios = 16;

// Gives experts that only dead ranks hold the live slots that are missed least: of experts with
// several live slots, the one with the lowest load per slot, where nodes allow it. Hottest orphan
// first.
class OrphanCover {
 public:
  OrphanCover(const std::vector<double>& mean, const std::vector<double>& rank_speed,
              const NodeRule& nodes, Placement& placement)
      : mean_(mean), nodes_(nodes), placement_(placement), live_(mean.size(), 0) {
    for (int32_t s = 0; s < placement.num_slots(); ++s) {
      if (rank_speed[Index(RankOf(s))] <= 0) continue;
      ++live_[HeldBy(s)];
      live_slots_.push_back(s);
    }
    if (live_slots_.size() < mean.size())
      Throw(ErrorKind::kResource, "repair: {} slots on live ranks; {} experts need one each",
            live_slots_.size(), mean.size());
    if (!nodes.home.empty()) at_home_ = CountNodeSlots(placement, nodes, rank_speed).at_home;
  }

  // Returns how many slots it took.
  int32_t Run() {
    std::vector<int32_t> orphans;
    for (int32_t e = 0; e < placement_.num_experts; ++e)
      if (live_[Index(e)] == 0) orphans.push_back(e);
    std::stable_sort(orphans.begin(), orphans.end(),
                     [this](int32_t a, int32_t b) { return mean_[Index(a)] > mean_[Index(b)]; });
    for (const int32_t orphan : orphans) Take(BestSlotFor(orphan), orphan);
    return static_cast<int32_t>(orphans.size());
  }

 private:
  int32_t RankOf(int32_t slot) const { return placement_.RankOf(SlotId(slot)).value; }
  size_t HeldBy(int32_t slot) const { return Index(placement_.slot_expert[Index(slot)].value); }
  bool IsAtHome(size_t expert, int32_t slot) const {
    return nodes_.IsHome(static_cast<int32_t>(expert), RankOf(slot));
  }

  // How often the node rule is broken when the orphan takes the slot.
  int32_t Breaches(int32_t orphan, int32_t slot) const {
    if (nodes_.home.empty()) return 0;
    const size_t held = HeldBy(slot);
    const bool leaves_home = IsAtHome(held, slot) && at_home_[held] == 1;
    return (leaves_home ? 1 : 0) + (IsAtHome(Index(orphan), slot) ? 0 : 1);
  }

  int32_t BestSlotFor(int32_t orphan) const {
    const auto cost = [&](int32_t slot) {
      return std::pair(Breaches(orphan, slot), mean_[HeldBy(slot)] / live_[HeldBy(slot)]);
    };
    int32_t best = -1;
    for (const int32_t s : live_slots_) {
      if (live_[HeldBy(s)] < 2) continue;
      if (best < 0 || cost(s) < cost(best)) best = s;
    }
    return best;
  }

  void Take(int32_t slot, int32_t orphan) {
    const size_t held = HeldBy(slot);
    --live_[held];
    live_[Index(orphan)] = 1;
    if (!nodes_.home.empty()) {
      at_home_[held] -= IsAtHome(held, slot) ? 1 : 0;
      at_home_[Index(orphan)] += IsAtHome(Index(orphan), slot) ? 1 : 0;
    }
    placement_.slot_expert[Index(slot)] = ExpertId(orphan);
  }

  const std::vector<double>& mean_;
  const NodeRule& nodes_;
  Placement& placement_;
  std::vector<int32_t> live_;     // [num_experts] live slots
  std::vector<int32_t> at_home_;  // [num_experts] of them, those at home; empty without nodes
  std::vector<int32_t> live_slots_;
};

int32_t NumCrossing(const Placement& placement, const NodeRule& nodes,
                    const std::vector<double>& rank_speed) {
  return nodes.home.empty() ? 0 : CountNodeSlots(placement, nodes, rank_speed).num_crossing;
}

NodeRule RuleFor(const Placement& now, const RepairOptions& options,
                 const std::vector<double>& rank_speed) {
  NodeRule rule = HomesOf(now, options.nodes);
  if (rule.home.empty()) return rule;
  const int32_t crossing = NumCrossing(now, rule, rank_speed);
  if (options.max_cross_slots >= 0 && crossing > options.max_cross_slots)
    Throw(ErrorKind::kInvalid,
          "repair: cross_node_slots is {}, but {} slots hold experts of other nodes than their "
          "home; allowed: {} or more, or no bound (repair then adds none to them)",
          options.max_cross_slots, crossing, crossing);
  rule.max_cross_slots =
      options.max_cross_slots >= 0 ? options.max_cross_slots : options.nodes.num_nodes;
  return rule;
}

// The weightiest scenarios, the newest of equals.
BatchLoads Heaviest(const BatchLoads& scenarios) {
  std::vector<int32_t> order;
  for (int32_t i = scenarios.size(); i-- > 0;) {
    const std::span<const double> load = scenarios.At(i);
    if (std::accumulate(load.begin(), load.end(), 0.0) > 0) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(), [&scenarios](int32_t a, int32_t b) {
    return scenarios.weights[Index(a)] > scenarios.weights[Index(b)];
  });
  order.resize(std::min(order.size(), static_cast<size_t>(kMaxScenarios)));
  BatchLoads heaviest{scenarios.num_experts, {}, {}};
  for (const int32_t i : order) heaviest.Add(scenarios.At(i), scenarios.weights[Index(i)]);
  return heaviest;
}

int32_t NumProposals(const Placement& now, const RepairOptions& options) {
  if (options.proposals > 0) return options.proposals;
  const int64_t affordable = kRepairRoom / (int64_t{now.num_ranks} * now.num_slots());
  return static_cast<int32_t>(std::clamp<int64_t>(affordable, 500, 2000));
}

// Where steps one by one missed the target or took several fetches for it, fewer may do.
void FetchFewer(const Placement& start, const BatchLoads& scenarios,
                const std::vector<double>& rank_speed, const NodeRule& nodes,
                const RepairOptions& options, RepairResult& result) {
  const bool reached =
      MeanOptimalImbalance(result.placement, scenarios, rank_speed) <= options.until;
  if (reached && result.fetched_slots <= 1) return;
  const int32_t limit =
      reached ? result.fetched_slots - 1 : std::min(options.max_fetched_slots, start.num_slots());
  const auto found = RepairToTarget(start, scenarios, {options.until, limit, rank_speed, nodes});
  if (!found) return;
  result.placement = *found;
  result.fetched_slots = CountFetchedSlots(start, *found);
}

// For the optimal split: steps one by one, then fewer fetches for the target if there is one.
void RepairForOptimalSplit(const Placement& start, const BatchLoads& scenarios,
                           const std::vector<double>& rank_speed, const NodeRule& nodes,
                           const RepairOptions& options, RepairResult& result) {
  PlanSearch search(
      scenarios, start,
      {.seed = options.seed, .current = &start, .rank_speed = rank_speed, .nodes = nodes});
  // With a target these steps only bound the fetches; RepairToTarget looks for the fewest.
  const int32_t proposals = NumProposals(start, options) / (options.until > 0 ? 2 : 1);
  // A step looks at a sample of the moves: one that finds none is no proof that there is none.
  for (int idle = 0; idle < kIdleSteps && search.objective() > options.until;)
    idle = search.Step(proposals, options.max_fetched_slots, options.min_gain) ? 0 : idle + 1;
  result.placement = search.placement();
  result.fetched_slots = search.num_fetches();
  if (options.until > 0) FetchFewer(start, scenarios, rank_speed, nodes, options, result);
}

}  // namespace

RepairResult RepairPlacement(const Placement& now, const BatchLoads& scenarios,
                             const RepairOptions& options) {
  std::vector<double> speed = options.rank_speed;
  if (speed.empty()) speed.assign(Index(now.num_ranks), 1.0);
  if (speed.size() != Index(now.num_ranks))
    Throw(ErrorKind::kInvalid, "repair: {} rank speeds for {} ranks", speed.size(), now.num_ranks);
  // The even split's objective tells batches that scatter from those that have something in common:
  // it wants all of them, and takes them side by side.
  const BatchLoads used = options.splits_evenly ? scenarios.WithLoad() : Heaviest(scenarios);
  if (used.size() == 0)
    Throw(ErrorKind::kInvalid, "repair: {} scenarios are given, none with load", scenarios.size());
  const auto imbalance = [&](const Placement& placement) {
    return options.splits_evenly ? MeanEvenImbalance(placement, used, speed)
                                 : MeanOptimalImbalance(placement, used, speed);
  };
  NodeRule nodes = RuleFor(now, options, speed);
  RepairResult result{.placement = now, .cross_slots_before = NumCrossing(now, nodes, speed)};
  const int32_t covered = OrphanCover(used.Mean(), speed, nodes, result.placement).Run();
  const Placement start = result.placement;
  // Covering, or a placement made without nodes, may be above the bound: then it is not raised.
  nodes.max_cross_slots = std::max(nodes.max_cross_slots, NumCrossing(start, nodes, speed));
  result.imbalance_before = imbalance(start);
  if (options.splits_evenly)
    result.placement = RepairForEvenSplit(start, used,
                                          {.max_fetched_slots = options.max_fetched_slots,
                                           .until = options.until,
                                           .min_gain = options.min_gain,
                                           .rank_speed = speed,
                                           .nodes = nodes,
                                           .seed = options.seed});
  else
    RepairForOptimalSplit(start, used, speed, nodes, options, result);
  // An expert that left its slot and came back to another one of its rank is not moved at all.
  result.placement = KeepSlots(start, result.placement);
  result.fetched_slots = CountFetchedSlots(start, result.placement) + covered;
  result.imbalance_after = imbalance(result.placement);
  result.cross_slots_after = NumCrossing(result.placement, nodes, speed);
  return result;
}

}  // namespace wideload::eplb
