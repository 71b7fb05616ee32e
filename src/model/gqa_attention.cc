#include "model/gqa_attention.h"

#include <cmath>

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
    : spec_(spec), eps_(model.norm_eps) {
  const auto weight = [&](const char* name, int64_t n, int64_t k, bool has_bias) {
    return has_bias ? loader.WeightAndBias(prefix + name, n, k)
                    : loader.Weight(prefix + name, n, k);
  };
  const int64_t q_rows = spec.q_heads * spec.head_dim;
  const int64_t kv_rows = spec.kv_heads * spec.head_dim;
  const WeightSource qkv[] = {weight("q_proj", q_rows, model.hidden, spec.qkv_bias),
                              weight("k_proj", kv_rows, model.hidden, spec.qkv_bias),
                              weight("v_proj", kv_rows, model.hidden, spec.qkv_bias)};
  qkv_ = loader.Matrix(qkv);
  if (spec.qk_norm == QkNorm::kPerHead || spec.qk_norm == QkNorm::kWholeRow) {
    const bool is_whole = spec.qk_norm == QkNorm::kWholeRow;
    q_norm_ = loader.Vector(prefix + "q_norm.weight", is_whole ? q_rows : spec.head_dim);
    k_norm_ = loader.Vector(prefix + "k_norm.weight", is_whole ? kv_rows : spec.head_dim);
  }
  if (spec.has_sinks) sinks_ = loader.Vector(prefix + "sinks", spec.q_heads);
  o_ = loader.Matrix(weight("o_proj", model.hidden, q_rows, spec.o_bias));
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
  MatMul(rank.exec, x, qkv_, qkv);
  rank.Poll();
  const auto columns = [&](int64_t first, int64_t heads) {
    return HeadPart{.rows = TensorView(DType::kF32, {tokens, heads * dim},
                                       qkv.data<float>() + first * dim, qkv.row_stride()),
                    .heads = heads};
  };
  const HeadPart q = columns(0, spec_.q_heads);
  const HeadPart k = columns(spec_.q_heads, spec_.kv_heads);
  const HeadPart v = columns(spec_.q_heads + spec_.kv_heads, spec_.kv_heads);
  Norm(rank.exec, q, q_norm_);
  Norm(rank.exec, k, k_norm_);
  Rotate(rank, rope, q);
  Rotate(rank, rope, k);
  if (spec_.temperature.floor > 0)
    ApplyTemperature(rank.exec, spec_.temperature, batch.positions, q.rows);

  const compute::PagedKv cache{rank.cache->Keys(layer), rank.cache->Values(layer)};
  const auto sequences = batch.SequencesOf(rank.cache->block_class(layer));
  StoreKv(rank.exec, k.rows, v.rows, sequences, cache);
  const compute::AttentionShape attention{
      .q_heads = spec_.q_heads,
      .kv_heads = spec_.kv_heads,
      .key_dim = dim,
      .value_dim = dim,
      .scale = spec_.scale,
      .window = spec_.window,
      .chunk = spec_.chunk,
      .sinks = {reinterpret_cast<const float*>(sinks_.data()),
                static_cast<size_t>(spec_.has_sinks ? spec_.q_heads : 0)}};
  const TensorView y =
      ws.TakeTensor(rank.exec.precision().activations, {tokens, spec_.q_heads * dim});
  PagedAttention(rank.exec, attention, q.rows, sequences, cache, y);
  rank.Poll();
  MatMul(rank.exec, y, o_, h, /*accumulate=*/true);
}

}  // namespace wideload::model
