#include "eplb/replay/simulate.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "base/error.h"
#include "eplb/placement/even_split.h"
#include "eplb/placement/index.h"
#include "eplb/policies/tensorrt_llm_policy.h"
#include "eplb/search/repair.h"
#include "eplb/search/scenario_store.h"
#include "eplb/split/integer_split.h"
#include "eplb/split/shared_expert.h"
#include "eplb/split/slot_chooser.h"
#include "eplb/split/water_filling.h"
#include "parallel/mapping.h"

namespace wideload::eplb {
namespace {

// The source rank of every token: equal contiguous shares, as [num_ranks + 1] offsets in entries.
std::vector<int64_t> SourceOffsets(const LayerTrace& trace, size_t entries, int32_t num_ranks) {
  const auto tokens = static_cast<int64_t>(entries) / trace.top_k;
  std::vector<int64_t> offsets;
  for (int32_t r = 0; r < num_ranks; ++r)
    offsets.push_back(parallel::ShardOf(tokens, num_ranks, r).begin * trace.top_k);
  offsets.push_back(static_cast<int64_t>(entries));
  return offsets;
}

std::vector<double> RoundRobinRankLoads(const LayerTrace& trace, const Placement& placement,
                                        const std::vector<uint16_t>& iteration) {
  SlotChooser chooser(placement, SplitMode::kRoundRobin);
  const std::vector<int64_t> offsets = SourceOffsets(trace, iteration.size(), placement.num_ranks);
  std::vector<double> rank_tokens(Index(placement.num_ranks), 0.0);
  for (int32_t r = 0; r < placement.num_ranks; ++r) {
    const std::vector<int32_t> ids(iteration.begin() + offsets[Index(r)],
                                   iteration.begin() + offsets[Index(r) + 1]);
    std::vector<int32_t> slots(ids.size());
    chooser.ChooseSlots(EpRank(r), ids, slots);
    for (const int32_t slot : slots) rank_tokens[Index(placement.RankOf(SlotId(slot)).value)] += 1;
  }
  return rank_tokens;
}

// The splitters of one placement, and what they make of an iteration.
class Measurer {
 public:
  Measurer(const LayerTrace& trace, const SimulateOptions& options, const Placement& placement)
      : trace_(trace),
        options_(options),
        placement_(placement),
        fractional_(placement),
        integer_(placement) {}

  // Appends the iteration's figures to `run`.
  void Measure(const std::vector<uint16_t>& iteration, const std::vector<double>& counts,
               SimulatedRun& run) {
    const std::vector<double> loads = RankLoads(run.split, iteration, counts);
    run.imbalance.push_back(ImbalanceRatio(loads));
    if (run.split == SimulatedSplit::kOptimal) CompareWithFraction(counts, loads, run);
    if (options_.shared_expert_cost > 0) AddSharedExpert(iteration, loads, run.shared);
  }

 private:
  std::vector<double> RankLoads(SimulatedSplit split, const std::vector<uint16_t>& iteration,
                                const std::vector<double>& counts) {
    switch (split) {
      case SimulatedSplit::kEven:
        return EvenSplitRankLoads(placement_, counts);
      case SimulatedSplit::kRoundRobin:
        return RoundRobinRankLoads(trace_, placement_, iteration);
      case SimulatedSplit::kOptimal: {
        integer_.Solve(std::vector<int64_t>(counts.begin(), counts.end()));
        const std::span<const int64_t> loads = integer_.rank_loads();
        return {loads.begin(), loads.end()};
      }
      case SimulatedSplit::kOptimalFractional: {
        fractional_.Solve(counts);
        const std::span<const double> loads = fractional_.rank_tokens();
        return {loads.begin(), loads.end()};
      }
    }
    return {};
  }

  void CompareWithFraction(const std::vector<double>& counts, const std::vector<double>& loads,
                           SimulatedRun& run) {
    constexpr double kRounding = 1e-6;  // of sums in double precision, relative
    const double optimum = fractional_.Solve(counts);
    run.imbalance_fractional.push_back(fractional_.imbalance());
    const double ceil = std::ceil(optimum * (1 - kRounding));
    if (*std::max_element(loads.begin(), loads.end()) > ceil) ++run.num_above_ceil;
  }

  // Fractional loads count as whole rows, to the nearest.
  void AddSharedExpert(const std::vector<uint16_t>& iteration, const std::vector<double>& loads,
                       SharedExpertRun& shared) const {
    const int32_t ranks = placement_.num_ranks;
    const double cost = options_.shared_expert_cost;
    const std::vector<int64_t> offsets = SourceOffsets(trace_, iteration.size(), ranks);
    std::vector<int32_t> tokens;
    std::vector<int64_t> routed;
    for (int32_t r = 0; r < ranks; ++r) {
      tokens.push_back(
          static_cast<int32_t>((offsets[Index(r) + 1] - offsets[Index(r)]) / trace_.top_k));
      routed.push_back(std::llround(loads[Index(r)]));
    }
    const std::vector<int32_t> rows = SplitSharedExpert(routed, tokens, cost);
    std::vector<double> home = loads;
    std::vector<double> filled = loads;
    int64_t moved = 0;
    for (int32_t from = 0; from < ranks; ++from) {
      home[Index(from)] += cost * tokens[Index(from)];
      for (int32_t to = 0; to < ranks; ++to) {
        const int32_t count = rows[Index(from) * Index(ranks) + Index(to)];
        filled[Index(to)] += cost * count;
        moved += from == to ? 0 : count;
      }
    }
    shared.imbalance_home.push_back(ImbalanceRatio(home));
    shared.imbalance.push_back(ImbalanceRatio(filled));
    shared.rows_moved += static_cast<double>(moved * trace_.top_k) /
                         static_cast<double>(std::max<size_t>(1, iteration.size()));
  }

  const LayerTrace& trace_;
  const SimulateOptions& options_;
  const Placement& placement_;
  WaterFilling fractional_;
  IntegerSplit integer_;
};

bool IsDead(const SimulateOptions& options, int32_t rank) {
  return std::find(options.dead_ranks.begin(), options.dead_ranks.end(), rank) !=
         options.dead_ranks.end();
}

// Without the dead ranks; experts that lost their last slot get others first, and `fetched` counts
// these.
Placement LivePlacement(const Placement& planned, const SimulateOptions& options,
                        const NodeSizes& nodes, const BatchLoads& recorded, int32_t& fetched) {
  if (options.dead_ranks.empty()) return planned;
  RepairOptions cover;
  cover.max_fetched_slots = 0;
  cover.nodes = nodes;
  for (int32_t r = 0; r < planned.num_ranks; ++r)
    cover.rank_speed.push_back(IsDead(options, r) ? 0 : 1);
  const RepairResult covered = RepairPlacement(planned, recorded, cover);
  fetched = covered.fetched_slots;
  Placement live{planned.num_experts, LiveSizes(options).num_ranks, {}};
  for (int32_t s = 0; s < planned.num_slots(); ++s)
    if (!IsDead(options, planned.RankOf(SlotId(s)).value))
      live.slot_expert.push_back(covered.placement.slot_expert[Index(s)]);
  return live;
}

void SimulatePolicy(const LayerTrace& trace, const SimulateOptions& options,
                    const SimulatedPolicy& policy, std::vector<SimulatedRun>& runs) {
  const BatchLoads recorded = RecordedBatches(trace);
  int32_t fetched_first = 0;
  Placement placement =
      LivePlacement(policy.plan(recorded), options, policy.nodes, recorded, fetched_first);
  const size_t first_run = runs.size();
  for (const SimulatedSplit split : options.splits)
    runs.push_back({.policy = policy.name,
                    .split = split,
                    .imbalance = {},
                    .slots_fetched_first = fetched_first,
                    .planned = placement});
  const std::span<SimulatedRun> own = std::span(runs).subspan(first_run);
  ScenarioStore store(trace.num_experts, options.store);
  for (int32_t i = 0; i < recorded.size(); ++i) store.Add(recorded.At(i));
  int64_t fetched = 0;
  for (const std::vector<uint16_t>& iteration : trace.measured) {
    const std::vector<double> counts = CountTokens(trace, iteration);
    Measurer measurer(trace, options, placement);
    for (SimulatedRun& run : own) measurer.Measure(iteration, counts, run);
    if (!policy.repair) continue;
    store.Add(counts);
    Placement repaired = policy.repair(placement, store.Get());
    fetched += CountFetchedSlots(placement, repaired);
    placement = std::move(repaired);
  }
  const auto iterations = static_cast<double>(std::max<size_t>(1, trace.measured.size()));
  for (SimulatedRun& run : own) {
    run.fetched_slots = static_cast<double>(fetched) / iterations;
    run.last = placement;
    run.shared.rows_moved /= iterations;
  }
}

}  // namespace

SimulatedSplit ParseSimulatedSplit(const std::string& name) {
  for (const SimulatedSplit split : {SimulatedSplit::kEven, SimulatedSplit::kRoundRobin,
                                     SimulatedSplit::kOptimal, SimulatedSplit::kOptimalFractional})
    if (SimulatedSplitName(split) == name) return split;
  Throw(ErrorKind::kInvalid,
        "split is \"{}\"; allowed: even, round_robin, optimal, optimal_fractional", name);
}

std::string SimulatedSplitName(SimulatedSplit split) {
  switch (split) {
    case SimulatedSplit::kEven:
      return "even";
    case SimulatedSplit::kRoundRobin:
      return "round_robin";
    case SimulatedSplit::kOptimal:
      return "optimal";
    case SimulatedSplit::kOptimalFractional:
      return "optimal_fractional";
  }
  return "";
}

Sizes LiveSizes(const SimulateOptions& options) {
  const std::set<int32_t> dead(options.dead_ranks.begin(), options.dead_ranks.end());
  for (const int32_t rank : dead)
    if (rank < 0 || rank >= options.num_ranks)
      Throw(ErrorKind::kInvalid, "dead rank {}: there are ranks 0 to {}", rank,
            options.num_ranks - 1);
  if (dead.size() != options.dead_ranks.size() || std::ssize(dead) == options.num_ranks)
    Throw(ErrorKind::kInvalid, "{} dead ranks, {} of them distinct; at most {} of {} can die, once",
          options.dead_ranks.size(), dead.size(), options.num_ranks - 1, options.num_ranks);
  const auto live = options.num_ranks - static_cast<int32_t>(dead.size());
  return {.num_slots = options.num_slots / options.num_ranks * live, .num_ranks = live};
}

std::vector<SimulatedRun> SimulateLayer(const LayerTrace& trace, const SimulateOptions& options,
                                        const std::vector<SimulatedPolicy>& policies) {
  LiveSizes(options);  // refuses dead ranks that are none
  std::vector<SimulatedRun> runs;
  for (const SimulatedPolicy& policy : policies) SimulatePolicy(trace, options, policy, runs);
  return runs;
}

std::vector<double> ClairvoyantImbalance(const LayerTrace& trace, int32_t num_ranks,
                                         int32_t num_slots) {
  std::vector<double> imbalance;
  for (const std::vector<uint16_t>& iteration : trace.measured) {
    const std::vector<double> counts = CountTokens(trace, iteration);
    const std::vector<float> loads(counts.begin(), counts.end());
    imbalance.push_back(
        EvenSplitImbalance(TensorRtLlmPlacement(loads, num_slots, num_ranks), counts));
  }
  return imbalance;
}

MeanAndP99 Summarise(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const auto rank = static_cast<size_t>(std::ceil(0.99 * static_cast<double>(values.size())));
  return {std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size()),
          values[rank - 1]};
}

}  // namespace wideload::eplb
