// The cos and sin tables of rotary position embedding. Values: thread-safe to read.
#pragma once

#include <cstdint>
#include <vector>

#include "checkpoint/model_config.h"
#include "tensor/buffer.h"

namespace wideload::checkpoint {

// F32, row p holds cos and sin of p x frequency i for each pair i, times the attention factor.
struct RopeTables {
  Buffer cos_buffer;  // [max_positions, head_dim / 2]
  Buffer sin_buffer;  // [max_positions, head_dim / 2]
  int64_t max_positions = 0;
  int64_t num_pairs = 0;

  TensorView cos() const { return cos_buffer.View(DType::kF32, {max_positions, num_pairs}); }
  TensorView sin() const { return sin_buffer.View(DType::kF32, {max_positions, num_pairs}); }
};

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

// Fills tables of this size. Angles are products in fp32, as the reference models take them.
// head_dim must be even.
void FillRopeTables(const RopeConfig& config, int64_t head_dim, RopeTables& tables);

// Tables of their own memory, filled.
// Errors: kResource when the machine refuses the memory, 4 x head_dim x max_positions bytes.
RopeTables MakeRopeTable(const RopeConfig& config, int64_t head_dim, int64_t max_positions);

}  // namespace wideload::checkpoint
