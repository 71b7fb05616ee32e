#include "statistics/expert_statistics.h"

#include <algorithm>

#include "base/error.h"

namespace wideload::statistics {

void AddCounts(std::span<const int64_t> addend, std::span<int64_t> sum, const std::string& where) {
  for (size_t i = 0; i < sum.size(); ++i)
    if (__builtin_add_overflow(sum[i], addend[i], &sum[i]))
      Throw(ErrorKind::kInvalid, "{}: the counts of expert {} add up to more than 2^63 - 1", where,
            i);
}

ExpertStatistics SumRanks(const ExpertStatistics& statistics) {
  ExpertStatistics sums = statistics;
  sums.num_ranks = 1;
  const auto row = static_cast<size_t>(statistics.num_experts);
  sums.counts.assign(static_cast<size_t>(statistics.num_iterations) * sums.layers.size() * row, 0);
  for (int64_t i = 0; i < sums.num_iterations; ++i)
    for (size_t l = 0; l < sums.layers.size(); ++l)
      for (int32_t r = 0; r < statistics.num_ranks; ++r)
        AddCounts(statistics.Row(i, l, r),
                  std::span(sums.counts).subspan(sums.RowOffset(i, l, 0), row),
                  fmt::format("iteration {}, layer {}", sums.iter_start + i, sums.layers[l]));
  return sums;
}

std::vector<int64_t> LayerLoads(const ExpertStatistics& statistics, size_t layer) {
  std::vector<int64_t> loads(static_cast<size_t>(statistics.num_experts), 0);
  for (int64_t i = 0; i < statistics.num_iterations; ++i)
    for (int32_t r = 0; r < statistics.num_ranks; ++r)
      AddCounts(statistics.Row(i, layer, r), loads,
                fmt::format("layer {}", statistics.layers[layer]));
  return loads;
}

eplb::BatchLoads LayerBatches(const ExpertStatistics& statistics, size_t layer) {
  eplb::BatchLoads batches{statistics.num_experts};
  for (int64_t i = 0; i < statistics.num_iterations; ++i) {
    std::vector<double> loads(static_cast<size_t>(statistics.num_experts), 0);
    for (int32_t r = 0; r < statistics.num_ranks; ++r) {
      const auto row = statistics.Row(i, layer, r);
      for (size_t e = 0; e < loads.size(); ++e) loads[e] += static_cast<double>(row[e]);
    }
    batches.Add(loads);
  }
  return batches;
}

ExpertStatistics TakeLayers(const ExpertStatistics& statistics, const std::vector<int32_t>& layers,
                            const std::string& where) {
  ExpertStatistics taken = statistics;
  taken.layers = layers;
  taken.counts.clear();
  for (int64_t i = 0; i < statistics.num_iterations; ++i)
    for (const int32_t layer : layers) {
      const auto found = std::find(statistics.layers.begin(), statistics.layers.end(), layer);
      if (found == statistics.layers.end())
        Throw(ErrorKind::kInvalid, "{}: there is no layer {}; allowed: {}", where, layer,
              fmt::join(statistics.layers, ", "));
      for (int32_t r = 0; r < statistics.num_ranks; ++r) {
        const auto row =
            statistics.Row(i, static_cast<size_t>(found - statistics.layers.begin()), r);
        taken.counts.insert(taken.counts.end(), row.begin(), row.end());
      }
    }
  return taken;
}

ExpertStatistics SlotsToExperts(const ExpertStatistics& statistics, const EplbConfig& config,
                                const std::string& source) {
  if (statistics.num_experts != config.num_slots)
    Throw(ErrorKind::kInvalid,
          "{}: num_slots is {}; the statistics count {} slots, so it must be that", source,
          config.num_slots, statistics.num_experts);
  ExpertStatistics result = statistics;
  result.num_experts = config.num_experts();
  const auto row = static_cast<size_t>(result.num_experts);
  result.counts.assign(statistics.counts.size() / static_cast<size_t>(statistics.num_experts) * row,
                       0);
  for (size_t l = 0; l < result.layers.size(); ++l) {
    const auto placement = config.layers.find(result.layers[l]);
    if (placement == config.layers.end())
      Throw(ErrorKind::kInvalid,
            "{}: initial_global_assignments has no layer {}, which the statistics have", source,
            result.layers[l]);
    const std::vector<int32_t>& slot_expert = placement->second;
    for (int64_t i = 0; i < result.num_iterations; ++i)
      for (int32_t r = 0; r < result.num_ranks; ++r) {
        const std::span<const int64_t> slots = statistics.Row(i, l, r);
        int64_t* experts = result.counts.data() + result.RowOffset(i, l, r);
        for (size_t s = 0; s < slots.size(); ++s)
          AddCounts(slots.subspan(s, 1), {experts + slot_expert[s], 1}, source);
      }
  }
  return result;
}

}  // namespace wideload::statistics
