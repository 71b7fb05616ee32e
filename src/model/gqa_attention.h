// Grouped-query attention: its weights, how they are loaded, and its forward pass. The ranks of a
// tensor-parallel group divide the heads, and the columns of what comes out. Constant after load,
// so thread-safe.
#pragma once

#include <span>
#include <string>

#include "model/column_cut.h"
#include "model/loader.h"
#include "model/model.h"

namespace wideload::model {

class GqaAttention {
 public:
  // `prefix`: of its tensors, "model.layers.3.self_attn.". Errors: as WeightLoader.
  GqaAttention(const GqaSpec& spec, const ModelSpec& model, const std::string& prefix,
               WeightLoader& loader);

  // h += W_o softmax(scale q k^T) v per head over layer `layer` of the rank's cache, with q, k and
  // v projections of x. x [T, H] activations, h [T, H] F32. Collective over rank.tensor
  // and rank.context.
  void Forward(const RankContext& rank, const Batch& batch, int64_t layer,
               const compute::RopeRows& rope, const TensorView& x, const TensorView& h) const;

 private:
  // The heads of q, k and v that this rank projects; a norm over the whole row needs all of q and
  // k.
  struct Projected {
    parallel::Shard q, k, v;
  };
  Projected ProjectedHeads(const TensorRank& rank) const;
  compute::PackedMatrix LoadProjection(const ModelSpec& model, const std::string& prefix,
                                       WeightLoader& loader) const;
  std::span<const float> OwnSinks() const;
  void Norm(const compute::Exec& exec, const compute::HeadPart& x, const Buffer& weight) const;
  void Rotate(const RankContext& rank, const compute::RopeRows& rope,
              const compute::HeadPart& x) const;

  GqaSpec spec_;
  float eps_ = 0;
  HeadShard heads_;  // of this rank
  Projected projected_;
  ColumnCut y_cut_;            // of q_heads D
  ColumnCut out_cut_;          // of H
  compute::PackedMatrix qkv_;  // [(projected q + k + v heads) D, H]
  Buffer q_norm_;              // [D], [q_heads D] with kWholeRow, or none
  Buffer k_norm_;
  Buffer sinks_;             // [q_heads] or none
  compute::PackedMatrix o_;  // [own H, q_heads D]
};

}  // namespace wideload::model
