#include "model/mla_attention.h"

namespace wideload::model {

using compute::HeadPart;

MlaAttention::MlaAttention(const MlaSpec& spec, const ModelSpec& model, const std::string& prefix,
                           WeightLoader& loader)
    : spec_(spec) {
  const int64_t q_rows = spec.heads * spec.query_dim();
  if (spec.q_lora_rank > 0) {
    q_a_ = loader.Matrix(loader.Weight(prefix + "q_a_proj", spec.q_lora_rank, model.hidden));
    q_norm_ = loader.Vector(prefix + "q_a_layernorm.weight", spec.q_lora_rank);
    q_b_ = loader.Matrix(loader.Weight(prefix + "q_b_proj", q_rows, spec.q_lora_rank));
  } else {
    q_b_ = loader.Matrix(loader.Weight(prefix + "q_proj", q_rows, model.hidden));
  }
  kv_a_ =
      loader.Matrix(loader.Weight(prefix + "kv_a_proj_with_mqa", spec.latent_dim(), model.hidden));
  kv_norm_ = loader.Vector(prefix + "kv_a_layernorm.weight", spec.kv_lora_rank);
  const int64_t head_rows = spec.nope_dim + spec.value_dim;
  const compute::WeightSource kv_b =
      loader.Weight(prefix + "kv_b_proj", spec.heads * head_rows, spec.kv_lora_rank);
  for (int64_t head = 0; head < spec.heads; ++head) {
    // Transposed, block-scaled codes would not lie along k: this one is widened.
    k_b_.push_back(loader.Matrix(kv_b.Rows(head * head_rows, spec.nope_dim).Transposed(),
                                 compute::PlainFormat(loader.kernels())));
    v_b_.push_back(loader.Matrix(kv_b.Rows(head * head_rows + spec.nope_dim, spec.value_dim)));
  }
  o_ = loader.Matrix(loader.Weight(prefix + "o_proj", model.hidden, spec.heads * spec.value_dim));
}

// [T, heads (nope + rope)] F32.
TensorView MlaAttention::Queries(const RankContext& rank, const TensorView& x) const {
  const int64_t tokens = x.dim(0);
  Workspace& ws = *rank.workspace;
  const TensorView q = ws.TakeTensor(DType::kF32, {tokens, q_b_.n()});
  if (spec_.q_lora_rank == 0) {
    MatMul(rank.exec, x, q_b_, q);
    return q;
  }
  const TensorView latent = ws.TakeTensor(DType::kF32, {tokens, spec_.q_lora_rank});
  const TensorView normed =
      ws.TakeTensor(rank.exec.precision().activations, {tokens, spec_.q_lora_rank});
  MatMul(rank.exec, x, q_a_, latent);
  RmsNorm(rank.exec, latent, q_norm_.View(DType::kF32, {spec_.q_lora_rank}), spec_.norm_eps,
          normed);
  MatMul(rank.exec, normed, q_b_, q);
  return q;
}

// Per head q_nope W_UK, then the rotated part: [T, heads (kv_lora + rope)] F32.
TensorView MlaAttention::LatentQueries(const RankContext& rank, const TensorView& q) const {
  const int64_t tokens = q.dim(0);
  Workspace& ws = *rank.workspace;
  const HeadPart nope{.rows = ws.TakeTensor(rank.exec.precision().activations,
                                            {tokens, spec_.heads * spec_.nope_dim}),
                      .heads = spec_.heads};
  const TensorView latent = ws.TakeTensor(DType::kF32, {tokens, spec_.heads * spec_.latent_dim()});
  const auto part = [&](const TensorView& rows, int64_t first, int64_t width) {
    return HeadPart{.rows = rows, .heads = spec_.heads, .first = first, .width = width};
  };
  ConvertHeads(rank.exec, part(q, 0, spec_.nope_dim), nope);
  MatMulHeads(rank.exec, nope, k_b_, part(latent, 0, spec_.kv_lora_rank));
  ConvertHeads(rank.exec, part(q, spec_.nope_dim, spec_.rope_dim),
               part(latent, spec_.kv_lora_rank, spec_.rope_dim));
  return latent;
}

// What the cache holds of the batch's tokens: normed latent, rotated key [T, kv_lora + rope] F32.
TensorView MlaAttention::Latents(const RankContext& rank, const compute::RopeRows& rope,
                                 const TensorView& x) const {
  const TensorView kv = rank.workspace->TakeTensor(DType::kF32, {x.dim(0), spec_.latent_dim()});
  MatMul(rank.exec, x, kv_a_, kv);
  RmsNormHeads(rank.exec, {.rows = kv, .first = 0, .width = spec_.kv_lora_rank},
               kv_norm_.View(DType::kF32, {spec_.kv_lora_rank}), spec_.norm_eps);
  Rope(rank.exec, {.rows = kv, .first = spec_.kv_lora_rank, .width = spec_.rope_dim},
       compute::RopePairs::kInterleaved, rope);
  return kv;
}

void MlaAttention::Forward(const RankContext& rank, const Batch& batch, int64_t layer,
                           const compute::RopeRows& rope, const TensorView& x,
                           const TensorView& h) const {
  const int64_t tokens = x.dim(0);
  Workspace& ws = *rank.workspace;
  const DType activations = rank.exec.precision().activations;
  const compute::PagedKv cache{rank.cache->Keys(layer), {}};
  const auto sequences = batch.SequencesOf(rank.cache->block_class(layer));
  StoreKv(rank.exec, Latents(rank, rope, x), {}, sequences, cache);

  rank.Poll();
  const TensorView q = Queries(rank, x);
  rank.Poll();
  Rope(rank.exec,
       {.rows = q, .heads = spec_.heads, .first = spec_.nope_dim, .width = spec_.rope_dim},
       compute::RopePairs::kInterleaved, rope);
  const compute::AttentionShape attention{.q_heads = spec_.heads,
                                          .kv_heads = 1,
                                          .key_dim = spec_.latent_dim(),
                                          .value_dim = spec_.kv_lora_rank,
                                          .scale = spec_.scale};
  const TensorView attended =
      ws.TakeTensor(activations, {tokens, spec_.heads * spec_.kv_lora_rank});
  PagedAttention(rank.exec, attention, LatentQueries(rank, q), sequences, cache, attended);
  rank.Poll();
  const TensorView values = ws.TakeTensor(activations, {tokens, spec_.heads * spec_.value_dim});
  MatMulHeads(rank.exec, {.rows = attended, .heads = spec_.heads}, v_b_,
              {.rows = values, .heads = spec_.heads});
  MatMul(rank.exec, values, o_, h, /*accumulate=*/true);
}

}  // namespace wideload::model
