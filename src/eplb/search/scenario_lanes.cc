#include "eplb/search/scenario_lanes.h"

#include <numeric>
#include <span>

namespace wideload::eplb {

ScenarioLanes::ScenarioLanes(const BatchLoads& scenarios, double total_speed, double tail)
    : num_experts_(scenarios.num_experts),
      num_scenarios_(scenarios.size()),
      tail_(static_cast<float>(tail)),
      num_lanes_((scenarios.size() + kLanes - 1) / kLanes * kLanes),
      loads_(static_cast<size_t>(scenarios.num_experts) * static_cast<size_t>(num_lanes_), 0.0F),
      weights_(static_cast<size_t>(num_lanes_), 0.0F) {
  const std::vector<double>& weights = scenarios.weights;
  const double weight_sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  for (size_t k = 0; k < weights.size(); ++k)
    weights_[k] = static_cast<float>(weights[k] / weight_sum);
  for (int32_t k = 0; k < scenarios.size(); ++k) {
    const std::span<const double> load = scenarios.At(k);
    const double sum = std::accumulate(load.begin(), load.end(), 0.0);
    if (sum <= 0) continue;
    for (size_t e = 0; e < load.size(); ++e)
      loads_[e * static_cast<size_t>(num_lanes_) + static_cast<size_t>(k)] =
          static_cast<float>(load[e] * total_speed / sum);
  }
}

}  // namespace wideload::eplb
