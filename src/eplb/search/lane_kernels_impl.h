// The kernels of lane_kernels.h; included by one file per instruction set, in its own namespace, so
// that nothing here is shared between them.
#pragma once

#include "eplb/search/lane_kernels.h"

namespace wideload::eplb {
namespace {

using Block [[gnu::vector_size(4 * kLanes)]] = float;

// Sweeps go this much further than half the difference of two ranks: chains of ranks level out in
// a number of sweeps like their length, not like its square.
constexpr float kOverRelaxation = 1.7F;
// Rounds of dropping full ranks before an expert's tokens are shared over the others.
constexpr int32_t kMaxRounds = 4;

inline __attribute__((always_inline)) void Load(const float* from, Block& block) {
  __builtin_memcpy(&block, from, sizeof(block));
}

inline __attribute__((always_inline)) void Store(const Block& block, float* to) {
  __builtin_memcpy(to, &block, sizeof(block));
}

inline __attribute__((always_inline)) float Sum(const Block& block) {
  float lanes[kLanes];
  Store(block, lanes);
  float sum = 0;
  for (const float lane : lanes) sum += lane;
  return sum;
}

float RaiseBounds(const LaneCuts& cuts, const LaneCosts& costs, float* bounds) {
  Block cost = {};
  const float* block_levels = cuts.levels;
  for (int32_t lane = 0; lane < cuts.num_lanes; lane += kLanes, block_levels += cuts.block_step) {
    Block bound;
    Block first;
    Block second;
    Block weight;
    Load(bounds + lane, bound);
    Load(cuts.load[0] + lane, first);
    Load(cuts.load[1] + lane, second);
    Load(costs.weights + lane, weight);
    for (int32_t cut = 0; cut < cuts.num_cuts; ++cut) {
      Block level;
      Load(block_levels + cut * kLanes, level);
      level += first * cuts.factor[0][cut] + second * cuts.factor[1][cut];
      bound = level > bound ? level : bound;
    }
    Store(bound, bounds + lane);
    const Block imbalance = bound - 1;
    cost += weight * (imbalance + imbalance * imbalance * costs.tail);
  }
  return Sum(cost);
}

float CostAbove(const float* level, const float* lower, const LaneCosts& costs) {
  Block high;
  Block low;
  Block weight;
  Load(level, high);
  Load(lower, low);
  Load(costs.weights, weight);
  high = high > low ? high : low;
  // cost(a) - cost(b) = (a - b) (1 + tail (a + b)), of imbalances.
  return Sum(weight * (high - low) * ((high + low - 2) * costs.tail + 1));
}

void AddScaled(const float* load, float factor, int32_t num_lanes, float* row, int64_t block_step) {
  for (int32_t lane = 0; lane < num_lanes; lane += kLanes, row += block_step) {
    Block sum;
    Block term;
    Load(row, sum);
    Load(load + lane, term);
    Store(sum + term * factor, row);
  }
}

// Moves tokens between the two slots of an expert.
inline __attribute__((always_inline)) void LevelPair(const LaneExperts& experts, int32_t expert,
                                                     float* heights, float* tokens) {
  const int32_t host = experts.begin[expert];
  float* to_a = heights + experts.rank[host];
  float* to_b = heights + experts.rank[host + 1];
  float* slot_a = tokens + experts.slot[host];
  float* slot_b = tokens + experts.slot[host + 1];
  Block height_a;
  Block height_b;
  Block tokens_a;
  Block tokens_b;
  Load(to_a, height_a);
  Load(to_b, height_b);
  Load(slot_a, tokens_a);
  Load(slot_b, tokens_b);
  Block moved = (height_a - height_b) * (kOverRelaxation * experts.pair_factor[expert]);
  moved = moved < tokens_a ? moved : tokens_a;
  const Block most = -tokens_b;
  moved = moved > most ? moved : most;
  Store(height_a - moved * experts.inverse_speed[host], to_a);
  Store(height_b + moved * experts.inverse_speed[host + 1], to_b);
  Store(tokens_a - moved, slot_a);
  Store(tokens_b + moved, slot_b);
}

// A rank's load without what it holds of an expert.
inline __attribute__((always_inline)) void LoadOthers(const LaneExperts& experts, int32_t host,
                                                      const float* heights, const float* tokens,
                                                      Block& others) {
  Block height;
  Block held;
  Load(heights + experts.rank[host], height);
  Load(tokens + experts.slot[host], held);
  others = height * experts.speed[host] - held;
}

// Fills the ranks of an expert, lowest first, to one level.
inline __attribute__((always_inline)) void LevelMany(const LaneExperts& experts, int32_t expert,
                                                     float* heights, float* tokens) {
  const int32_t begin = experts.begin[expert];
  const int32_t end = experts.begin[expert + 1];
  Block demand = {};
  Block all = {};
  float all_speed = 0;
  for (int32_t h = begin; h < end; ++h) {
    Block height;
    Block held;
    Load(heights + experts.rank[h], height);
    Load(tokens + experts.slot[h], held);
    demand += held;
    all += height * experts.speed[h];
    all_speed += experts.speed[h];
  }
  Block level = all * (1 / all_speed);
  const int32_t rounds = end - begin < kMaxRounds ? end - begin : kMaxRounds;
  for (int32_t round = 1; round < rounds; ++round) {
    Block load = demand;
    Block speed = {};
    for (int32_t h = begin; h < end; ++h) {
      Block others;
      LoadOthers(experts, h, heights, tokens, others);
      const auto below = others < level * experts.speed[h];
      load = below ? load + others : load;
      speed = below ? speed + experts.speed[h] : speed;
    }
    level = speed > 0 ? load / speed : level;
  }
  Block sum = {};
  for (int32_t h = begin; h < end; ++h) {
    Block others;
    LoadOthers(experts, h, heights, tokens, others);
    Block take = level * experts.speed[h] - others;
    take = take > 0 ? take : Block{};
    sum += take;
    Store(others, heights + experts.rank[h]);
    Store(take, tokens + experts.slot[h]);
  }
  const Block scale = sum > 0 ? demand / sum : Block{};
  for (int32_t h = begin; h < end; ++h) {
    Block others;
    Block take;
    Load(heights + experts.rank[h], others);
    Load(tokens + experts.slot[h], take);
    take *= scale;
    Store((others + take) * experts.inverse_speed[h], heights + experts.rank[h]);
    Store(take, tokens + experts.slot[h]);
  }
}

void Level(const LaneExperts& all_experts, float* heights, float* tokens) {
  const LaneExperts experts = all_experts;
  for (int32_t i = 0; i < experts.num_experts; ++i) {
    if (experts.pair_factor[i] > 0)
      LevelPair(experts, i, heights, tokens);
    else
      LevelMany(experts, i, heights, tokens);
  }
}

void Highest(const float* heights, int32_t num_ranks, float* highest) {
  Block most;
  Load(heights, most);
  for (int32_t r = 1; r < num_ranks; ++r) {
    Block height;
    Load(heights + r * kLanes, height);
    most = height > most ? height : most;
  }
  Store(most, highest);
}

constexpr LaneKernels kKernels = {RaiseBounds, CostAbove, AddScaled, Level, Highest};

}  // namespace
}  // namespace wideload::eplb
