// Grouped-query attention: its weights, how they are loaded, and its forward pass. Constant after
// load, so thread-safe.
#pragma once

#include <string>

#include "model/loader.h"
#include "model/model.h"

namespace wideload::model {

class GqaAttention {
 public:
  // `prefix`: of its tensors, "model.layers.3.self_attn.". Errors: as WeightLoader.
  GqaAttention(const GqaSpec& spec, const ModelSpec& model, const std::string& prefix,
               WeightLoader& loader);

  // h += W_o softmax(scale q k^T) v per head over layer `layer` of the rank's cache, with q, k and
  // v projections of x. x [T, H] activations, h [T, H] F32.
  void Forward(const RankContext& rank, const Batch& batch, int64_t layer,
               const compute::RopeRows& rope, const TensorView& x, const TensorView& h) const;

 private:
  void Norm(const compute::Exec& exec, const compute::HeadPart& x, const Buffer& weight) const;
  void Rotate(const RankContext& rank, const compute::RopeRows& rope,
              const compute::HeadPart& x) const;

  GqaSpec spec_;
  float eps_ = 0;
  compute::PackedMatrix qkv_;  // [(q_heads + 2 kv_heads) D, H]
  Buffer q_norm_;              // [D], [q_heads D] with kWholeRow, or none
  Buffer k_norm_;
  Buffer sinks_;             // [q_heads] or none
  compute::PackedMatrix o_;  // [H, q_heads D]
};

}  // namespace wideload::model
