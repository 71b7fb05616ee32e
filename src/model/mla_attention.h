// Multi-head latent attention in its absorbed form: queries are carried into the latent space, so
// that the cache holds one row of latent and rotated key a token and every head attends over that.
// All positions are computed this way, prompts too: the expanded form gives other bits. The ranks
// of a tensor-parallel group divide the heads, and the columns of what comes out; each computes and
// keeps the latents. Constant after load, so thread-safe. Source: DeepSeek-V2 (arXiv
// 2405.04434), 2.1.
#pragma once

#include <string>
#include <vector>

#include "model/column_cut.h"
#include "model/loader.h"
#include "model/model.h"

namespace wideload::model {

class MlaAttention {
 public:
  // `prefix`: of its tensors, "model.layers.3.self_attn.". Errors: as WeightLoader.
  MlaAttention(const MlaSpec& spec, const ModelSpec& model, const std::string& prefix,
               WeightLoader& loader);

  // h += W_o (attended values) over layer `layer` of the rank's cache. x [T, H] activations, h
  // [T, H] F32. Collective over rank.tensor and rank.context.
  void Forward(const RankContext& rank, const Batch& batch, int64_t layer,
               const compute::RopeRows& rope, const TensorView& x, const TensorView& h) const;

 private:
  void LoadHeads(const compute::WeightSource& kv_b, WeightLoader& loader);
  TensorView Queries(const RankContext& rank, const TensorView& x) const;
  TensorView LatentQueries(const RankContext& rank, const TensorView& q) const;
  TensorView Latents(const RankContext& rank, const compute::RopeRows& rope,
                     const TensorView& x) const;

  MlaSpec spec_;
  int64_t heads_ = 0;                       // of this rank
  ColumnCut values_cut_;                    // of heads value
  ColumnCut out_cut_;                       // of H
  compute::PackedMatrix q_a_;               // [q_lora, H] where queries have a latent of their own
  Buffer q_norm_;                           // [q_lora]
  compute::PackedMatrix q_b_;               // [own heads (nope + rope), q_lora or H]
  compute::PackedMatrix kv_a_;              // [kv_lora + rope, H]
  Buffer kv_norm_;                          // [kv_lora]
  std::vector<compute::PackedMatrix> k_b_;  // of each own head: [kv_lora, nope]
  std::vector<compute::PackedMatrix> v_b_;  // of each own head: [value, kv_lora]
  compute::PackedMatrix o_;                 // [own H, heads value]
};

}  // namespace wideload::model
