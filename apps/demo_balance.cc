#include "demo_balance.h"

#include <algorithm>

#include "eplb/placement/even_split.h"
#include "eplb/policies/policy.h"
#include "eplb/split/slot_chooser.h"

namespace wideload::apps {
namespace {

std::vector<double> OptimalRankLoads(eplb::SlotChooser& chooser, const eplb::Placement& placement,
                                     const statistics::ExpertStatistics& recorded,
                                     int64_t iteration, size_t layer) {
  std::vector<int32_t> counts;
  for (int32_t r = 0; r < recorded.num_ranks; ++r)
    for (const int64_t count : recorded.Row(iteration, layer, r))
      counts.push_back(static_cast<int32_t>(count));
  chooser.Prepare(counts);
  std::vector<double> loads(static_cast<size_t>(placement.num_ranks), 0);
  for (int32_t s = 0; s < placement.num_slots(); ++s)
    loads[static_cast<size_t>(placement.RankOf(SlotId(s)).value)] +=
        chooser.quotas()[static_cast<size_t>(s)];
  return loads;
}

}  // namespace

double MeanImbalance(const std::vector<IterationRows>& iterations) {
  double sum = 0;
  int64_t count = 0;
  for (const IterationRows& layers : iterations) {
    for (const std::vector<double>& rows : layers) {
      if (std::all_of(rows.begin(), rows.end(), [](double n) { return n == 0; })) continue;
      sum += eplb::ImbalanceRatio(rows);
      ++count;
    }
  }
  return count == 0 ? 0 : sum / static_cast<double>(count);
}

statistics::EplbConfig PlanFromTraining(const statistics::ExpertStatistics& recorded,
                                        const std::vector<DomainCounts>& domains, int32_t num_ranks,
                                        int32_t num_slots) {
  statistics::EplbConfig plan{.num_slots = num_slots};
  for (size_t layer = 0; layer < recorded.num_layers(); ++layer) {
    const eplb::BatchLoads all = statistics::LayerBatches(recorded, layer);
    eplb::BatchLoads loads{recorded.num_experts};
    for (const DomainCounts& domain : domains) {
      if (!domain.is_training) continue;
      for (int64_t i = domain.begin; i < domain.end; ++i)
        loads.Add(all.At(static_cast<int32_t>(i)));
    }
    const eplb::Placement placement = eplb::PlanLayer(
        eplb::GreedyPolicy(), {.loads = loads, .num_slots = num_slots, .num_ranks = num_ranks});
    plan.SetLayer(recorded.layers[layer], placement);
  }
  return plan;
}

std::vector<DomainBalance> BalanceOfDomains(const statistics::ExpertStatistics& recorded,
                                            const std::vector<DomainCounts>& domains,
                                            const statistics::EplbConfig& plan) {
  const int32_t num_ranks = recorded.num_ranks;
  const eplb::Placement contiguous =
      eplb::ContiguousPlacement(recorded.num_experts, recorded.num_experts, num_ranks);
  const statistics::EplbTarget target{
      .num_experts = recorded.num_experts, .ep_size = num_ranks, .layers = recorded.layers};
  std::vector<eplb::Placement> placements;
  std::vector<eplb::SlotChooser> choosers;
  std::vector<eplb::BatchLoads> batches;
  for (size_t l = 0; l < recorded.num_layers(); ++l)
    batches.push_back(statistics::LayerBatches(recorded, l));
  for (const int32_t layer : recorded.layers) {
    placements.push_back(statistics::LayerPlacement(plan, layer, target, "the plan"));
    choosers.emplace_back(placements.back(), eplb::SplitMode::kOptimal);
  }
  std::vector<DomainBalance> table;
  for (const DomainCounts& domain : domains) {
    std::vector<IterationRows> a, b, c;
    for (int64_t i = domain.begin; i < domain.end; ++i) {
      IterationRows& rows_a = a.emplace_back();
      IterationRows& rows_b = b.emplace_back();
      IterationRows& rows_c = c.emplace_back();
      for (size_t layer = 0; layer < recorded.num_layers(); ++layer) {
        const std::span<const double> loads = batches[layer].At(static_cast<int32_t>(i));
        rows_a.push_back(eplb::EvenSplitRankLoads(contiguous, loads));
        rows_b.push_back(eplb::EvenSplitRankLoads(placements[layer], loads));
        rows_c.push_back(OptimalRankLoads(choosers[layer], placements[layer], recorded, i, layer));
      }
    }
    table.push_back({.name = domain.name,
                     .is_training = domain.is_training,
                     .contiguous = MeanImbalance(a),
                     .greedy_even = MeanImbalance(b),
                     .greedy_optimal = MeanImbalance(c)});
  }
  return table;
}

DomainBalance MeanOfServed(const std::vector<DomainBalance>& table) {
  DomainBalance mean;
  double count = 0;
  for (const DomainBalance& row : table) count += row.is_training ? 0 : 1;
  for (const DomainBalance& row : table) {
    if (row.is_training) continue;
    mean.contiguous += row.contiguous / count;
    mean.greedy_even += row.greedy_even / count;
    mean.greedy_optimal += row.greedy_optimal / count;
    mean.measured += row.measured / count;
    mean.online += row.online / count;
  }
  return mean;
}

}  // namespace wideload::apps
