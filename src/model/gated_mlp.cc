#include "model/gated_mlp.h"

namespace wideload::model {

GatedMlp::GatedMlp(const std::string& prefix, int64_t width, int64_t hidden, bool has_bias,
                   WeightLoader& loader) {
  const auto weight = [&](const char* name, int64_t n, int64_t k) {
    return has_bias ? loader.WeightAndBias(prefix + name, n, k)
                    : loader.Weight(prefix + name, n, k);
  };
  weights_ = loader.Mlp(weight("gate_proj", width, hidden), weight("up_proj", width, hidden),
                        weight("down_proj", hidden, width));
}

TensorView GatedMlp::Gated(const RankContext& rank, const compute::GatedActivation& activation,
                           const TensorView& x) const {
  const TensorView gated = rank.workspace->TakeTensor(rank.exec.precision().activations,
                                                      {x.dim(0), weights_.down().k()});
  MatMulGated(rank.exec, x, weights_.gate_up(), activation, gated);
  return gated;
}

void GatedMlp::Forward(const RankContext& rank, const compute::GatedActivation& activation,
                       const TensorView& x, const TensorView& h) const {
  MatMul(rank.exec, Gated(rank, activation, x), weights_.down(), h, /*accumulate=*/true);
}

TensorView GatedMlp::Output(const RankContext& rank, const compute::GatedActivation& activation,
                            const TensorView& x) const {
  const TensorView y = rank.workspace->TakeTensor(rank.exec.precision().activations,
                                                  {x.dim(0), weights_.down().n()});
  MatMul(rank.exec, Gated(rank, activation, x), weights_.down(), y);
  return y;
}

}  // namespace wideload::model
