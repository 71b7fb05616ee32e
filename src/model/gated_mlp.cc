#include "model/gated_mlp.h"

namespace wideload::model {

using compute::WeightSource;

GatedMlp::GatedMlp(const GatedMlpSpec& spec, const std::string& prefix, WeightLoader& loader)
    : spec_(spec) {
  const auto weight = [&](const char* name, int64_t n, int64_t k) {
    return spec.has_bias ? loader.WeightAndBias(prefix + name, n, k)
                         : loader.Weight(prefix + name, n, k);
  };
  const WeightSource gate = weight("gate_proj", spec.width, spec.hidden);
  const WeightSource up = weight("up_proj", spec.width, spec.hidden);
  const WeightSource down = weight("down_proj", spec.hidden, spec.width);
  if (!spec.is_divided) {
    gate_up_ = loader.GateUp(gate, up);
    down_ = loader.Matrix(down);
    return;
  }
  inner_cut_ = ColumnCut(spec.width, loader.tensor_rank());
  out_cut_ = ColumnCut(spec.hidden, loader.tensor_rank());
  gate_up_ = loader.EachShard([&](int32_t rank) {
    const parallel::Shard own = inner_cut_.Of(rank);
    return loader.GateUp(gate.Rows(own.begin, own.size()), up.Rows(own.begin, own.size()));
  });
  down_ = loader.EachShard([&](int32_t rank) {
    const parallel::Shard own = out_cut_.Of(rank);
    return loader.Matrix(down.Rows(own.begin, own.size()));
  });
}

TensorView GatedMlp::Gated(const RankContext& rank, const compute::GatedActivation& activation,
                           const TensorView& x) const {
  const TensorView gated =
      rank.workspace->TakeTensor(rank.exec.precision().activations, {x.dim(0), spec_.width});
  MatMulGated(rank.exec, x, gate_up_, activation, inner_cut_.Own(gated));
  inner_cut_.Gather(rank, gated);
  return gated;
}

void GatedMlp::Forward(const RankContext& rank, const compute::GatedActivation& activation,
                       const TensorView& x, const TensorView& h) const {
  MatMul(rank.exec, Gated(rank, activation, x), down_, out_cut_.Own(h), /*accumulate=*/true);
  out_cut_.Gather(rank, h);
}

TensorView GatedMlp::Output(const RankContext& rank, const compute::GatedActivation& activation,
                            const TensorView& x) const {
  const TensorView y =
      rank.workspace->TakeTensor(rank.exec.precision().activations, {x.dim(0), spec_.hidden});
  MatMul(rank.exec, Gated(rank, activation, x), down_, out_cut_.Own(y));
  out_cut_.Gather(rank, y);
  return y;
}

}  // namespace wideload::model
