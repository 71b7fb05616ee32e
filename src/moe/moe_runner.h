// One rank's way through the routed experts of a layer: route, choose slots, exchange, compute,
// combine at home. Used by the rank's own thread; weights are shared by all ranks and constant.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "compute/ops.h"

namespace wideload::moe {

// The same for every MoE layer of a model.
struct MoeShape {
  int64_t hidden = 0;
  int64_t num_experts = 0;  // 0: the model has no MoE layer
  int64_t top_k = 0;
  bool normalize = true;        // the top_k weights are divided by their sum
  std::vector<int32_t> layers;  // model layers that are MoE, ascending
};

// One layer's router and experts.
struct MoeWeights {
  compute::PackedMatrix router;                 // [E, H], MatrixPrecision::kF32
  std::vector<compute::ExpertWeights> experts;  // [E]
};

class MoeRunner {
 public:
  explicit MoeRunner(const MoeShape& shape);

  // h += sum over the chosen experts of weight * expert(x), for the rank's T tokens (also none).
  // moe_index: position of the layer in shape.layers. x [T, H] F32 (normed), h [T, H] F32.
  // Collective: every rank calls it for every MoE layer of an iteration.
  void Forward(const compute::Exec& exec, Workspace& workspace, int32_t moe_index,
               const MoeWeights& weights, const TensorView& x, const TensorView& h);

 private:
  MoeShape shape_;
  std::vector<int32_t> counts_;  // [E] routed tokens of the chunk
  std::vector<compute::ExpertGroup> groups_;
};

}  // namespace wideload::moe
