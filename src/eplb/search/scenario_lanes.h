// Scenario loads as the search's kernels want them: side by side, scaled, padded. Plain value;
// immutable, so it may be read by several threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "eplb/placement/batch_loads.h"
#include "eplb/search/lane_kernels.h"

namespace wideload::eplb {

// Scenario loads, scaled so that the mean rank carries 1, experts major; lanes beyond the scenarios
// are zero.
class ScenarioLanes {
 public:
  // total_speed: sum over ranks that are alive (the number of ranks when all have speed 1).
  // tail: the objective is the weighted mean over scenarios of h + tail x h^2, h the imbalance. A
  // placement that is good on average and bad for one kind of batch suffers most when that kind
  // comes more often than it was recorded.
  ScenarioLanes(const BatchLoads& scenarios, double total_speed, double tail = 0);

  int32_t num_experts() const { return num_experts_; }
  int32_t num_scenarios() const { return num_scenarios_; }
  int32_t num_lanes() const { return num_lanes_; }  // multiple of kLanes
  int32_t num_blocks() const { return num_lanes_ / kLanes; }
  // The expert's load in every lane; [num_lanes].
  const float* Loads(int32_t expert) const {
    return loads_.data() + static_cast<size_t>(expert) * static_cast<size_t>(num_lanes_);
  }
  // From scenario `first` on; weights sum up to 1.
  LaneCosts CostsFrom(int32_t first) const { return {weights_.data() + first, tail_}; }
  // What scenario k's busiest rank / mean adds to the objective.
  double CostOf(int32_t k, float level) const {
    const double imbalance = level > 1 ? static_cast<double>(level) - 1 : 0.0;
    return static_cast<double>(weights_[static_cast<size_t>(k)]) *
           (imbalance + static_cast<double>(tail_) * imbalance * imbalance);
  }

 private:
  int32_t num_experts_;
  int32_t num_scenarios_;
  float tail_;
  int32_t num_lanes_;
  std::vector<float> loads_;    // [num_experts * num_lanes]
  std::vector<float> weights_;  // [num_lanes]
};

}  // namespace wideload::eplb
