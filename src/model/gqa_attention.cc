#include "model/gqa_attention.h"

#include <cmath>

#include "model/context_attention.h"

namespace wideload::model {
namespace {

using compute::HeadPart;
using compute::WeightSource;

// q of each row times the temperature of its position.
void ApplyTemperature(const compute::Exec& exec, const AttentionTemperature& temperature,
                      std::span<const int32_t> positions, const TensorView& q) {
  const auto scale_row = [&](int64_t t, int) {
    const double position = positions[static_cast<size_t>(t)];
    const auto factor = static_cast<float>(
        1.0 + temperature.scale * std::log1p(std::floor((position + 1.0) / temperature.floor)));
    float* row = q.row<float>(t);
    for (int64_t i = 0; i < q.dim(1); ++i) row[i] *= factor;
  };
  exec.pool->Run(q.dim(0), scale_row);
}

}  // namespace

GqaAttention::GqaAttention(const GqaSpec& spec, const ModelSpec& model, const std::string& prefix,
                           WeightLoader& loader)
    : spec_(spec),
      eps_(model.norm_eps),
      heads_(HeadsOf(spec, loader.tensor_rank())),
      projected_(ProjectedHeads(loader.tensor_rank())),
      out_cut_(model.hidden, loader.tensor_rank()) {
  qkv_ = LoadProjection(model, prefix, loader);
  const int64_t q_rows = spec.q_heads * spec.head_dim;
  const int64_t kv_rows = spec.kv_heads * spec.head_dim;
  if (spec.qk_norm == QkNorm::kPerHead || spec.qk_norm == QkNorm::kWholeRow) {
    const bool is_whole = spec.qk_norm == QkNorm::kWholeRow;
    q_norm_ = loader.Vector(prefix + "q_norm.weight", is_whole ? q_rows : spec.head_dim);
    k_norm_ = loader.Vector(prefix + "k_norm.weight", is_whole ? kv_rows : spec.head_dim);
  }
  if (spec.has_sinks) sinks_ = loader.Vector(prefix + "sinks", spec.q_heads);
  const WeightSource o = spec.o_bias ? loader.WeightAndBias(prefix + "o_proj", model.hidden, q_rows)
                                     : loader.Weight(prefix + "o_proj", model.hidden, q_rows);
  o_ = loader.EachShard([&](int32_t rank) {
    const parallel::Shard own = out_cut_.Of(rank);
    return loader.Matrix(o.Rows(own.begin, own.size()));
  });
  std::vector<int64_t> y_ends;
  for (int32_t r = 0; r < loader.tensor_rank().size; ++r)
    y_ends.push_back(HeadsOf(spec, {r, loader.tensor_rank().size}).q.end * spec.head_dim);
  y_cut_ = ColumnCut(std::move(y_ends), loader.tensor_rank().rank);
}

GqaAttention::Projected GqaAttention::ProjectedHeads(const TensorRank& rank) const {
  const HeadShard heads = HeadsOf(spec_, rank);
  if (spec_.qk_norm != QkNorm::kWholeRow) return {.q = heads.q, .k = heads.kv, .v = heads.kv};
  return {.q = {0, spec_.q_heads}, .k = {0, spec_.kv_heads}, .v = heads.kv};
}

compute::PackedMatrix GqaAttention::LoadProjection(const ModelSpec& model,
                                                   const std::string& prefix,
                                                   WeightLoader& loader) const {
  const auto weight = [&](const char* name, int64_t heads) {
    const int64_t n = heads * spec_.head_dim;
    return spec_.qkv_bias ? loader.WeightAndBias(prefix + name, n, model.hidden)
                          : loader.Weight(prefix + name, n, model.hidden);
  };
  const WeightSource q = weight("q_proj", spec_.q_heads);
  const WeightSource k = weight("k_proj", spec_.kv_heads);
  const WeightSource v = weight("v_proj", spec_.kv_heads);
  const auto part = [&](const WeightSource& source, const parallel::Shard& heads) {
    return source.Rows(heads.begin * spec_.head_dim, heads.size() * spec_.head_dim);
  };
  return loader.EachShard([&](int32_t rank) {
    const Projected heads = ProjectedHeads({rank, loader.tensor_rank().size});
    const WeightSource parts[] = {part(q, heads.q), part(k, heads.k), part(v, heads.v)};
    return loader.Matrix(parts);
  });
}

void GqaAttention::Norm(const compute::Exec& exec, const HeadPart& x, const Buffer& weight) const {
  if (spec_.qk_norm == QkNorm::kPerHead)
    RmsNormHeads(exec, x, weight.View(DType::kF32, {spec_.head_dim}), eps_);
  if (spec_.qk_norm == QkNorm::kWholeRow)
    RmsNorm(exec, x.rows, weight.View(DType::kF32, {x.rows.dim(1)}), eps_, x.rows);
}

void GqaAttention::Rotate(const RankContext& rank, const compute::RopeRows& rope,
                          const HeadPart& x) const {
  if (!spec_.is_rotary) return;
  Rope(rank.exec, x, spec_.rope_pairs, rope);
  if (spec_.qk_norm == QkNorm::kAfterRope) RmsNormHeads(rank.exec, x, {}, eps_);
}

void GqaAttention::Forward(const RankContext& rank, const Batch& batch, int64_t layer,
                           const compute::RopeRows& rope, const TensorView& x,
                           const TensorView& h) const {
  const int64_t dim = spec_.head_dim;
  const int64_t tokens = x.dim(0);
  Workspace& ws = *rank.workspace;
  const TensorView qkv = ws.TakeTensor(DType::kF32, {tokens, qkv_.n()});
  rank.MatMul(x, qkv_, qkv);
  const auto columns = [&](int64_t first, const parallel::Shard& heads) {
    return HeadPart{.rows = TensorView(DType::kF32, {tokens, heads.size() * dim},
                                       qkv.data<float>() + first * dim, qkv.row_stride()),
                    .heads = heads.size()};
  };
  const int64_t first_k = projected_.q.size();
  const int64_t first_v = first_k + projected_.k.size();
  Norm(rank.exec, columns(0, projected_.q), q_norm_);
  Norm(rank.exec, columns(first_k, projected_.k), k_norm_);
  const HeadPart q = columns(heads_.q.begin - projected_.q.begin, heads_.q);
  const HeadPart k = columns(first_k + heads_.kv.begin - projected_.k.begin, heads_.kv);
  const HeadPart v = columns(first_v, heads_.kv);
  Rotate(rank, rope, q);
  Rotate(rank, rope, k);
  if (spec_.temperature.floor > 0)
    ApplyTemperature(rank.exec, spec_.temperature, batch.positions, q.rows);

  const compute::AttentionShape attention{.q_heads = heads_.q.size(),
                                          .kv_heads = heads_.kv.size(),
                                          .key_dim = dim,
                                          .value_dim = dim,
                                          .scale = spec_.scale,
                                          .window = spec_.window,
                                          .chunk = spec_.chunk,
                                          .sinks = OwnSinks()};
  const TensorView y =
      ws.TakeTensor(rank.exec.precision().activations, {tokens, spec_.q_heads * dim});
  Attend(rank, batch, layer, attention, {.q = q.rows, .k = k.rows, .v = v.rows}, y_cut_.Own(y));
  y_cut_.Gather(rank, y);
  rank.Poll();
  rank.MatMul(y, o_, out_cut_.Own(h), /*accumulate=*/true);
  out_cut_.Gather(rank, h);
}

std::span<const float> GqaAttention::OwnSinks() const {
  if (!spec_.has_sinks) return {};
  return {reinterpret_cast<const float*>(sinks_.data()) + heads_.q.begin,
          static_cast<size_t>(heads_.q.size())};
}

}  // namespace wideload::model
