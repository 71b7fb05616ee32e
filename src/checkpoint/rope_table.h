// Rotary position embedding: frequencies, and cos and sin of positions.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "checkpoint/model_config.h"

namespace wideload::checkpoint {

// Angle per position of each pair of dimensions, [head_dim / 2], as fp32: theta^(-2i/d), scaled by
// the config's type. Source: "YaRN: Efficient Context Window Extension" (arXiv
// 2309.00071), 3.2-3.3, with the rounding of transformers; llama3: the published code of Llama 3.1.
std::vector<float> RopeFrequencies(const RopeConfig& config, int64_t head_dim);

// What cos and sin are multiplied with; 1 except for yarn. Source: arXiv 2309.00071, 3.4, and the
// mscale fields of DeepSeek's configs.
float RopeAttentionFactor(const RopeConfig& config);

// What DeepSeek's models multiply the scale of attention scores with besides: the square of yarn's
// mscale for mscale_all_dim; 1 without it.
float YarnScoreFactor(const RopeConfig& config);

// cos and sin of each position x frequency, times the attention factor. A context may be far longer
// than any request, so they are computed block by block of positions, when one is first asked for.
// Angles are products in fp32, as the reference models take them. Thread-safe.
class RopeTable {
 public:
  // rotary_dim must be even.
  RopeTable(const RopeConfig& config, int64_t rotary_dim, int64_t max_positions);
  ~RopeTable();
  RopeTable(const RopeTable&) = delete;
  RopeTable& operator=(const RopeTable&) = delete;

  int64_t num_pairs() const { return static_cast<int64_t>(frequencies_.size()); }
  // Writes num_pairs() values each for a position in [0, max_positions).
  void CopyRow(int64_t position, float* cos, float* sin) const;

 private:
  const float* Block(int64_t index) const;
  const float* MakeBlock(int64_t index) const;

  std::vector<float> frequencies_;
  float attention_factor_ = 1;
  int64_t max_positions_ = 0;
  // Each null until it is asked for, then cos and sin of each of its positions in turn.
  std::unique_ptr<std::atomic<const float*>[]> blocks_;
};

}  // namespace wideload::checkpoint
