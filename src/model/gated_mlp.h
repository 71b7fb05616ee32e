// A gated MLP that all tokens pass through, y = down(activation(gate x, up x)): that of a dense
// layer, which the ranks of a tensor-parallel group divide, or a shared expert, which each of them
// computes for tokens of its own. Constant after load, so thread-safe.
#pragma once

#include <string>

#include "model/column_cut.h"
#include "model/loader.h"
#include "model/model.h"

namespace wideload::model {

struct GatedMlpSpec {
  int64_t hidden = 0;
  int64_t width = 0;
  bool has_bias = false;
  bool is_divided = false;  // among the ranks of a tensor-parallel group
};

class GatedMlp {
 public:
  GatedMlp() = default;
  // `prefix`: of its tensors, "model.layers.3.mlp."; gate_proj, up_proj and down_proj follow.
  // Errors: as WeightLoader.
  GatedMlp(const GatedMlpSpec& spec, const std::string& prefix, WeightLoader& loader);

  // h += mlp(x). x [T, H] activations, h [T, H] F32. Collective over rank.tensor if divided.
  void Forward(const RankContext& rank, const compute::GatedActivation& activation,
               const TensorView& x, const TensorView& h) const;
  // mlp(x) rounded to activations [T, H], in the workspace. Likewise.
  TensorView Output(const RankContext& rank, const compute::GatedActivation& activation,
                    const TensorView& x) const;

 private:
  TensorView Gated(const RankContext& rank, const compute::GatedActivation& activation,
                   const TensorView& x) const;

  GatedMlpSpec spec_;
  ColumnCut inner_cut_;            // of width
  ColumnCut out_cut_;              // of H
  compute::PackedMatrix gate_up_;  // [2 own width, H]
  compute::PackedMatrix down_;     // [own H, width]
};

}  // namespace wideload::model
