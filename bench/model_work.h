// What an iteration has to do at least, counted from the model: the bound of its time.
#pragma once

#include <cstdint>
#include <span>

#include "model/model.h"

namespace wideload::bench {

// Counts of one model, weights packed.
struct ModelWork {
  // Floating-point operations of a token without its attention over others, head apart.
  double token_flops = 0;
  double head_flops = 0;     // of a row whose logits are wanted
  double flops_per_key = 0;  // of a token with each position that it sees, all layers
  double dense_bytes = 0;    // weights that every iteration reads
  double expert_bytes = 0;   // of one expert
  int64_t num_experts = 0;   // of a layer
  int64_t kv_bytes_per_token = 0;

  explicit ModelWork(const model::Model& model, DType kv_dtype);
  // A prompt of so many tokens, alone.
  double PromptFlops(int64_t tokens) const;
  // Weights that an iteration reads: each expert that a token was routed to once. routed_counts
  // [MoE layers * experts].
  double Bytes(std::span<const int32_t> routed_counts) const;
};

}  // namespace wideload::bench
