// A layer's experts: router, routed experts, and the shared expert that some families add. Constant
// after load, so thread-safe.
#pragma once

#include <span>
#include <string>

#include "model/gated_mlp.h"
#include "model/loader.h"
#include "model/model.h"

namespace wideload::model {

class MoeBlock {
 public:
  MoeBlock() = default;
  // `prefix`: of the layer, "model.layers.3."; names as model.names says. Experts that the loader
  // does not own are left out. Errors: as WeightLoader.
  MoeBlock(const ModelSpec& model, int32_t moe_index, const std::string& prefix,
           WeightLoader& loader);

  // h += routed experts(x) + shared expert(x). x [T, H] F32 (normed), h [T, H] F32, both of this
  // rank's own tokens: those of a batch that several ranks have are divided among them. Collective.
  void Forward(const RankContext& rank, const TensorView& x, const TensorView& h) const;

  // The experts' part [num_experts]; without bytes those that were left out.
  std::span<const compute::ExpertWeights> Experts(int32_t part) const {
    return std::span(routed_.experts)
        .subspan(static_cast<size_t>(part) * num_experts_, num_experts_);
  }

 private:
  void LoadExpert(int32_t expert, const WeightLoader::ExpertSources& sources, WeightLoader& loader);
  void AddShared(const RankContext& rank, const TensorView& x, const TensorView& h) const;

  int32_t moe_index_ = 0;
  size_t num_experts_ = 0;
  compute::GatedActivation activation_;
  moe::MoeWeights routed_;
  int64_t shared_width_ = 0;
  GatedMlp shared_;
  bool has_shared_gate_ = false;
  compute::PackedMatrix shared_gate_;  // [1, H] fp32
};

}  // namespace wideload::model
