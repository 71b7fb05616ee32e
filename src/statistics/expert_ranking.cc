#include "statistics/expert_ranking.h"

#include <algorithm>
#include <numeric>

namespace wideload::statistics {

std::vector<LayerRanking> RankExperts(const ExpertStatistics& statistics, int32_t count) {
  std::vector<LayerRanking> layers;
  for (size_t l = 0; l < statistics.layers.size(); ++l) {
    const std::vector<int64_t> loads = LayerLoads(statistics, l);
    const double total = std::accumulate(loads.begin(), loads.end(), 0.0);
    if (total == 0) continue;
    const double mean = total / static_cast<double>(loads.size());
    std::vector<int32_t> order(loads.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      return loads[static_cast<size_t>(a)] > loads[static_cast<size_t>(b)];
    });
    LayerRanking& ranking = layers.emplace_back();
    ranking.layer = statistics.layers[l];
    const auto shown = std::min<size_t>(static_cast<size_t>(count), order.size());
    const auto relative = [&](int32_t expert) {
      return RankedExpert{expert, static_cast<double>(loads[static_cast<size_t>(expert)]) / mean};
    };
    for (size_t i = 0; i < shown; ++i) {
      ranking.hot.push_back(relative(order[i]));
      ranking.top_share += ranking.hot.back().load / static_cast<double>(loads.size());
    }
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      return loads[static_cast<size_t>(a)] < loads[static_cast<size_t>(b)];
    });
    for (size_t i = 0; i < shown; ++i) ranking.cold.push_back(relative(order[i]));
    ranking.never_chosen = static_cast<int32_t>(std::count(loads.begin(), loads.end(), 0));
  }
  return layers;
}

}  // namespace wideload::statistics
