#include "eplb/replay/bounds.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <vector>

#include "eplb/placement/index.h"
#include "eplb/search/component_plan.h"
#include "eplb/split/max_flow.h"

namespace wideload::eplb {
namespace {

// Nodes: experts, ranks, source, sink. The cut's ranks and the demand confined to them when `level`
// tokens a rank do not suffice.
struct Cut {
  bool fits = false;
  int64_t confined = 0;
  int64_t ranks = 0;
};

Cut TryLevel(const Placement& placement, std::span<const int64_t> counts, int64_t level) {
  const int32_t source = placement.num_experts + placement.num_ranks;
  MaxFlow flow(source + 2);
  const int64_t total = std::accumulate(counts.begin(), counts.end(), int64_t{0});
  for (int32_t e = 0; e < placement.num_experts; ++e) flow.AddArc(source, e, counts[Index(e)]);
  for (int32_t s = 0; s < placement.num_slots(); ++s)
    flow.AddArc(placement.slot_expert[Index(s)].value,
                placement.num_experts + placement.RankOf(SlotId(s)).value, total);
  for (int32_t r = 0; r < placement.num_ranks; ++r)
    flow.AddArc(placement.num_experts + r, source + 1, level);
  Cut cut;
  cut.fits = flow.Solve(source, source + 1) == total;
  for (int32_t e = 0; e < placement.num_experts; ++e)
    cut.confined += flow.OnSourceSide(e) ? counts[Index(e)] : 0;
  for (int32_t r = 0; r < placement.num_ranks; ++r)
    cut.ranks += flow.OnSourceSide(placement.num_experts + r);
  return cut;
}

}  // namespace

double ReplicaCapacityBound(std::span<const double> loads, const Sizes& sizes) {
  const double total = std::accumulate(loads.begin(), loads.end(), 0.0);
  if (total <= 0) return 0;
  const double mean = total / sizes.num_ranks;
  const auto needed = [&](double level) {
    double slots = 0;
    for (const double load : loads) slots += std::max(1.0, std::ceil(load / level - 1e-9));
    return slots;
  };
  double low = mean;
  if (needed(low) <= sizes.num_slots) return 0;
  double high = total;
  for (int step = 0; step < 60; ++step) {
    const double middle = (low + high) / 2;
    (needed(middle) <= sizes.num_slots ? high : low) = middle;
  }
  return high / mean - 1;
}

int64_t OptimalWholeMaximum(const Placement& placement, std::span<const int64_t> counts) {
  const int64_t total = std::accumulate(counts.begin(), counts.end(), int64_t{0});
  int64_t level = (total + placement.num_ranks - 1) / placement.num_ranks;
  while (true) {
    const Cut cut = TryLevel(placement, counts, level);
    if (cut.fits) return level;
    level = (cut.confined + cut.ranks - 1) / cut.ranks;
  }
}

double ExpectedNormalMaximum(int32_t n) {
  if (n < 2) return 0;
  // E[max] = integral of x n phi(x) Phi(x)^(n - 1).
  constexpr double kStep = 0.01;
  constexpr double kRange = 8;
  double sum = 0;
  for (double x = -kRange; x <= kRange; x += kStep) {
    const double density = std::exp(-x * x / 2) / std::sqrt(2 * std::numbers::pi);
    const double below = 0.5 * std::erfc(-x / std::numbers::sqrt2);
    sum += x * n * density * std::pow(below, n - 1) * kStep;
  }
  return sum;
}

double ComponentBound(const BatchLoads& scenarios, const Sizes& sizes) {
  const int32_t groups = FewestComponents(scenarios.num_experts, sizes.num_slots, sizes.num_ranks);
  if (groups < 2 || scenarios.size() < 2) return 0;
  std::vector<double> sum(Index(scenarios.num_experts), 0.0), squares(sum);
  for (int32_t k = 0; k < scenarios.size(); ++k) {
    const std::span<const double> load = scenarios.At(k);
    const double total = std::accumulate(load.begin(), load.end(), 0.0);
    for (size_t e = 0; e < sum.size() && total > 0; ++e) {
      const double share = load[e] / total * sizes.num_ranks;
      sum[e] += share;
      squares[e] += share * share;
    }
  }
  double variance = 0;
  const double n = scenarios.size();
  for (size_t e = 0; e < sum.size(); ++e)
    variance += std::max(0.0, (squares[e] - sum[e] * sum[e] / n) / (n - 1));
  // A group's mean: a K-th of the variance over (R / K)^2, less what the fixed total ties.
  const double group_deviation = std::sqrt(variance * groups) / sizes.num_ranks;
  return ExpectedNormalMaximum(groups) * group_deviation * std::sqrt(1 - 1.0 / groups);
}

double SamplingFloor(int64_t num_choices, int32_t num_ranks) {
  if (num_choices < 1 || num_ranks < 2) return 0;
  return ExpectedNormalMaximum(num_ranks) *
         std::sqrt((num_ranks - 1.0) / static_cast<double>(num_choices));
}

}  // namespace wideload::eplb
