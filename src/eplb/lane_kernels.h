// The inner loops of the placement search: sixteen scenarios side by side, for each instruction set
// the same operations in the same order, so that a plan does not depend on the processor. Internal
// to eplb; pure.
#pragma once

#include <cstdint>

namespace wideload::eplb {

// Scenarios of one block; arrays of lanes are this many floats per element.
inline constexpr int32_t kLanes = 16;

// What imbalances cost: weight x (h + tail x h^2) for an imbalance of h.
struct LaneCosts {
  const float* weights = nullptr;  // [num_lanes]
  float tail = 0;
};

// Rows of tokens confined to cuts, against the bounds of all scenarios.
struct LaneCuts {
  const float* rows = nullptr;           // [num_cuts * num_lanes]
  const float* inverse_speed = nullptr;  // [num_cuts]
  const float* sign[2] = {};             // [num_cuts] times load[i] is added to a row
  const float* load[2] = {};             // [num_lanes]
  int32_t num_cuts = 0;
  int32_t num_lanes = 0;  // multiple of kLanes
};

// Experts that several slots hold: hosts [begin[i], begin[i + 1]), each on another rank.
struct LaneExperts {
  const int32_t* begin = nullptr;        // [num_experts + 1]
  const int32_t* slot = nullptr;         // [num_hosts] slot x kLanes
  const int32_t* rank = nullptr;         // [num_hosts] its rank x kLanes
  const float* speed = nullptr;          // [num_hosts] of that rank, > 0
  const float* inverse_speed = nullptr;  // [num_hosts]
  const float* pair_factor = nullptr;  // [num_experts] with two hosts: 1 / (sum of inverse speeds)
  int32_t num_experts = 0;
};

struct LaneKernels {
  // bounds[k] = max(bounds[k], (row + sign x load) x inverse speed) over the cuts; [num_lanes],
  // each at least 1 before. Returns the cost of imbalances of bounds[k] - 1.
  float (*raise_bounds)(const LaneCuts& cuts, const LaneCosts& costs, float* bounds);
  // Cost of `level` less that of `lower`, over k < kLanes with level above lower; both busiest rank
  // / mean, lower at least 1.
  float (*cost_above)(const float* level, const float* lower, const LaneCosts& costs);
  // row[k] += factor x load[k], k < num_lanes
  void (*add_scaled)(const float* load, float factor, int32_t num_lanes, float* row);
  // Shares every expert's tokens over its slots so that their ranks end equally full, one expert
  // after the other. heights [num_ranks * kLanes]: tokens / speed;
  // tokens [num_slots * kLanes].
  void (*level)(const LaneExperts& experts, float* heights, float* tokens);
  // highest[k] = max over ranks of heights; [kLanes]
  void (*highest)(const float* heights, int32_t num_ranks, float* highest);
};

// One table per instruction set, by file. Best ones for this processor: BestLaneKernels.
const LaneKernels& BaselineLaneKernels();
const LaneKernels& Avx2LaneKernels();
const LaneKernels& Avx512LaneKernels();
const LaneKernels& BestLaneKernels();

}  // namespace wideload::eplb
