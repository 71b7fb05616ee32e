// A gated MLP that all tokens pass through, y = down(activation(gate x, up x)): that of a dense
// layer, or a shared expert. Constant after load, so thread-safe.
#pragma once

#include <string>

#include "model/loader.h"
#include "model/model.h"

namespace wideload::model {

class GatedMlp {
 public:
  GatedMlp() = default;
  // `prefix`: of its tensors, "model.layers.3.mlp."; gate_proj, up_proj and down_proj follow.
  // Errors: as WeightLoader.
  GatedMlp(const std::string& prefix, int64_t width, int64_t hidden, bool has_bias,
           WeightLoader& loader);

  // h += mlp(x). x [T, H] activations, h [T, H] F32.
  void Forward(const RankContext& rank, const compute::GatedActivation& activation,
               const TensorView& x, const TensorView& h) const;
  // mlp(x) rounded to activations [T, H], in the workspace.
  TensorView Output(const RankContext& rank, const compute::GatedActivation& activation,
                    const TensorView& x) const;

 private:
  TensorView Gated(const RankContext& rank, const compute::GatedActivation& activation,
                   const TensorView& x) const;

  compute::ExpertWeights weights_;
};

}  // namespace wideload::model
