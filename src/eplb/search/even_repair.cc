#include "eplb/search/even_repair.h"

#include <algorithm>
#include <numeric>

#include "eplb/placement/index.h"
#include "eplb/search/even_model.h"
#include "eplb/search/even_search.h"

namespace wideload::eplb {
namespace {

constexpr int32_t kProposalsPerStep = 4000;
// A step looks at a sample of the moves: one that finds none is no proof that there is none.
constexpr int kIdleSteps = 3;
// Steps take the best of many moves each: beyond so many annealing is the better use of the time.
constexpr int kMaxSteps = 64;
constexpr int64_t kAnnealedProposals = 100'000;
// In objective / ranks. The start is a good placement: it is not to be melted down.
constexpr double kStartTemperature = 0.03;

}  // namespace

double MeanEvenImbalance(const Placement& placement, const BatchLoads& batches,
                         std::span<const double> rank_speed) {
  std::vector<double> share(Index(placement.num_experts), 0.0);  // 1 / live slots
  const auto speed_of = [&](int32_t slot) {
    return rank_speed[Index(placement.RankOf(SlotId(slot)).value)];
  };
  for (int32_t s = 0; s < placement.num_slots(); ++s)
    if (speed_of(s) > 0) share[Index(placement.slot_expert[Index(s)].value)] += 1;
  for (double& slots : share) slots = slots > 0 ? 1 / slots : 0;
  const double total_speed = std::accumulate(rank_speed.begin(), rank_speed.end(), 0.0);
  double sum = 0;
  double weights = 0;
  std::vector<double> heights(rank_speed.size());
  for (int32_t i = 0; i < batches.size(); ++i) {
    const std::span<const double> load = batches.At(i);
    const double total = std::accumulate(load.begin(), load.end(), 0.0);
    if (total <= 0) continue;
    std::fill(heights.begin(), heights.end(), 0.0);
    for (int32_t s = 0; s < placement.num_slots(); ++s) {
      if (speed_of(s) <= 0) continue;
      const auto expert = Index(placement.slot_expert[Index(s)].value);
      heights[Index(placement.RankOf(SlotId(s)).value)] +=
          load[expert] * share[expert] / speed_of(s);
    }
    const double highest = *std::max_element(heights.begin(), heights.end());
    sum += batches.weights[Index(i)] * (highest * total_speed / total - 1);
    weights += batches.weights[Index(i)];
  }
  return weights > 0 ? sum / weights : 0;
}

Placement RepairForEvenSplit(const Placement& start, const BatchLoads& batches,
                             const EvenRepairOptions& options) {
  const double total_speed =
      std::accumulate(options.rank_speed.begin(), options.rank_speed.end(), 0.0);
  const EvenModel model = MakeEvenModel(batches, total_speed);
  const EvenSearchOptions search_options{.seed = options.seed,
                                         .fetch_price = options.min_gain,
                                         .current = &start,
                                         .max_fetches = options.max_fetched_slots,
                                         .rank_speed = options.rank_speed,
                                         .nodes = options.nodes};
  EvenSearch steps(model, start, search_options);
  const auto met = [&] {
    return MeanEvenImbalance(steps.placement(), batches, options.rank_speed) <= options.until;
  };
  int idle = 0;
  for (int i = 0; i < kMaxSteps && idle < kIdleSteps && !met(); ++i)
    idle = steps.Step(kProposalsPerStep, 0) ? 0 : idle + 1;
  if (met()) return steps.placement();
  EvenSearch annealed(model, start, search_options);
  annealed.Anneal({.proposals = kAnnealedProposals, .start_temperature = kStartTemperature});
  steps.Tune();  // objectives of placements compare at the sharpness of each
  return annealed.objective() < steps.objective() ? annealed.placement() : steps.placement();
}

}  // namespace wideload::eplb
