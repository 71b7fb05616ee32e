// The inner loops of the placement search: sixteen scenarios side by side, for each instruction set
// the same operations in the same order, so that a plan does not depend on the processor. Internal
// to eplb; pure.
#pragma once

#include <cstdint>

namespace wideload::eplb {

// BatchLoads of one block; arrays of lanes are this many floats per element.
inline constexpr int32_t kLanes = 16;

// What imbalances cost: weight x (h + tail x h^2) for an imbalance of h.
struct LaneCosts {
  const float* weights = nullptr;  // [num_lanes]
  float tail = 0;
};

// Levels of cuts (tokens confined to a set of ranks / its speed) against the bounds of scenarios:
// of each block of kLanes scenarios the cuts one after the other.
struct LaneCuts {
  const float* levels = nullptr;  // block b's begin at b x block_step
  const float* factor[2] = {};    // [num_cuts] times load[i] is added to a cut's level
  const float* load[2] = {};      // [num_lanes]
  int32_t num_cuts = 0;
  int32_t num_lanes = 0;   // multiple of kLanes
  int64_t block_step = 0;  // floats
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
  // bounds[k] = max(bounds[k], level + sum over i of factor[i] x load[i]) over the cuts;
  // [num_lanes], each at least 1 before. Returns the cost of imbalances of bounds[k] - 1.
  float (*raise_bounds)(const LaneCuts& cuts, const LaneCosts& costs, float* bounds);
  // Cost of `level` less that of `lower`, over k < kLanes with level above lower; both busiest rank
  // / mean, lower at least 1.
  float (*cost_above)(const float* level, const float* lower, const LaneCosts& costs);
  // row[k] += factor x load[k], k < num_lanes; block b of the row begins at b x block_step floats.
  void (*add_scaled)(const float* load, float factor, int32_t num_lanes, float* row,
                     int64_t block_step);
  // Shares every expert's tokens over its slots so that their ranks end equally full, one expert
  // after the other. heights [num_ranks * kLanes]: tokens / speed;
  // tokens [num_slots * kLanes].
  void (*level)(const LaneExperts& experts, float* heights, float* tokens);
  // highest[k] = max over ranks of heights; [kLanes]
  void (*highest)(const float* heights, int32_t num_ranks, float* highest);
};

// One table per instruction set, by file. Best ones for this processor: BestLaneKernels.
const LaneKernels& BaselineLaneKernels();
// Needs a processor with AVX2.
const LaneKernels& Avx2LaneKernels();
// Needs a processor with AVX-512F.
const LaneKernels& Avx512LaneKernels();
// The widest that this processor has.
const LaneKernels& BestLaneKernels();

}  // namespace wideload::eplb
