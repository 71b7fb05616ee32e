#include "eplb/repair.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "eplb/placement_figures.h"
#include "eplb/plan_search.h"
#include "eplb/scenario_planner.h"
#include "eplb/target_repair.h"

namespace wideload::eplb {
namespace {

constexpr int kIdleSteps = 6;

size_t Index(int32_t i) { return static_cast<size_t>(i); }

// More vectors than this change a repair little and cost time.
constexpr int32_t kMaxScenarios = 16;

// Gives experts that only dead ranks hold the live slots that are missed least: of experts with
// several live slots, the one with the lowest load per slot. Hottest orphan first.
int32_t CoverOrphans(const std::vector<double>& mean, const std::vector<double>& rank_speed,
                     Placement& placement) {
  std::vector<int32_t> live(mean.size(), 0);
  std::vector<int32_t> live_slots;
  for (int32_t s = 0; s < placement.num_slots(); ++s) {
    if (rank_speed[Index(placement.RankOf(SlotId(s)).value)] <= 0) continue;
    ++live[Index(placement.slot_expert[Index(s)].value)];
    live_slots.push_back(s);
  }
  if (live_slots.size() < mean.size())
    Throw(ErrorKind::kResource, "repair: {} slots on live ranks; {} experts need one each",
          live_slots.size(), mean.size());
  std::vector<int32_t> orphans;
  for (int32_t e = 0; e < placement.num_experts; ++e)
    if (live[Index(e)] == 0) orphans.push_back(e);
  std::stable_sort(orphans.begin(), orphans.end(),
                   [&mean](int32_t a, int32_t b) { return mean[Index(a)] > mean[Index(b)]; });
  for (const int32_t orphan : orphans) {
    int32_t best = -1;
    const auto loss = [&](int32_t slot) {
      const size_t held = Index(placement.slot_expert[Index(slot)].value);
      return mean[held] / live[held];
    };
    for (const int32_t s : live_slots) {
      if (live[Index(placement.slot_expert[Index(s)].value)] < 2) continue;
      if (best < 0 || loss(s) < loss(best)) best = s;
    }
    --live[Index(placement.slot_expert[Index(best)].value)];
    placement.slot_expert[Index(best)] = ExpertId(orphan);
    live[Index(orphan)] = 1;
  }
  return static_cast<int32_t>(orphans.size());
}

// The weightiest scenarios, the newest of equals.
Scenarios Heaviest(const Scenarios& scenarios) {
  std::vector<int32_t> order;
  for (int32_t i = scenarios.size(); i-- > 0;) {
    const std::span<const double> load = scenarios.At(i);
    if (std::accumulate(load.begin(), load.end(), 0.0) > 0) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(), [&scenarios](int32_t a, int32_t b) {
    return scenarios.weights[Index(a)] > scenarios.weights[Index(b)];
  });
  order.resize(std::min(order.size(), static_cast<size_t>(kMaxScenarios)));
  Scenarios heaviest{scenarios.num_experts, {}, {}};
  for (const int32_t i : order) heaviest.Add(scenarios.At(i), scenarios.weights[Index(i)]);
  return heaviest;
}

// Where steps one by one missed the target or took several fetches for it, fewer may do.
void FetchFewer(const Placement& start, const Scenarios& scenarios,
                const std::vector<double>& rank_speed, const RepairOptions& options,
                RepairResult& result) {
  const bool reached =
      MeanOptimalImbalance(result.placement, scenarios, rank_speed) <= options.until;
  if (reached && result.fetched_slots <= 1) return;
  const int32_t limit =
      reached ? result.fetched_slots - 1 : std::min(options.max_fetched_slots, start.num_slots());
  const auto found = RepairToTarget(start, scenarios, {options.until, limit, rank_speed});
  if (!found) return;
  result.placement = *found;
  result.fetched_slots = CountFetchedSlots(start, *found);
}

}  // namespace

RepairResult RepairPlacement(const Placement& now, const Scenarios& scenarios,
                             const RepairOptions& options) {
  std::vector<double> speed = options.rank_speed;
  if (speed.empty()) speed.assign(Index(now.num_ranks), 1.0);
  if (speed.size() != Index(now.num_ranks))
    Throw(ErrorKind::kInvalid, "repair: {} rank speeds for {} ranks", speed.size(), now.num_ranks);
  const Scenarios used = Heaviest(scenarios);
  if (used.size() == 0)
    Throw(ErrorKind::kInvalid, "repair: {} scenarios are given, none with load", scenarios.size());
  RepairResult result{now, 0, 0, 0};
  const int32_t covered = CoverOrphans(used.Mean(), speed, result.placement);
  const Placement start = result.placement;
  result.imbalance_before = MeanOptimalImbalance(start, used, speed);
  PlanSearch search(used, start, {.seed = options.seed, .current = &start, .rank_speed = speed});
  // A step looks at a sample of the moves: one that finds none is no proof that there is none.
  for (int idle = 0; idle < kIdleSteps && search.objective() > options.until;)
    idle =
        search.Step(options.proposals, options.max_fetched_slots, options.min_gain) ? 0 : idle + 1;
  result.placement = search.placement();
  result.fetched_slots = search.num_fetches();
  if (options.until > 0) FetchFewer(start, used, speed, options, result);
  result.imbalance_after = MeanOptimalImbalance(result.placement, used, speed);
  result.fetched_slots += covered;
  return result;
}

}  // namespace wideload::eplb
