#include "model/mla_attention.h"

#include <tuple>
#include <utility>

#include "model/context_attention.h"

namespace wideload::model {

using compute::HeadPart;
using compute::WeightSource;

MlaAttention::MlaAttention(const MlaSpec& spec, const ModelSpec& model, const std::string& prefix,
                           WeightLoader& loader)
    : spec_(spec),
      heads_(HeadsOf(spec, loader.tensor_rank()).size()),
      out_cut_(model.hidden, loader.tensor_rank()) {
  const int32_t ranks = loader.tensor_rank().size;
  const int64_t q_rows = spec.heads * spec.query_dim();
  const auto load_queries = [&](const WeightSource& queries) {
    return loader.EachShard([&](int32_t rank) {
      const parallel::Shard own = HeadsOf(spec, {rank, ranks});
      return loader.Matrix(
          queries.Rows(own.begin * spec.query_dim(), own.size() * spec.query_dim()));
    });
  };
  if (spec.q_lora_rank > 0) {
    q_a_ = loader.Matrix(loader.Weight(prefix + "q_a_proj", spec.q_lora_rank, model.hidden));
    q_norm_ = loader.Vector(prefix + "q_a_layernorm.weight", spec.q_lora_rank);
    q_b_ = load_queries(loader.Weight(prefix + "q_b_proj", q_rows, spec.q_lora_rank));
  } else {
    q_b_ = load_queries(loader.Weight(prefix + "q_proj", q_rows, model.hidden));
  }
  kv_a_ =
      loader.Matrix(loader.Weight(prefix + "kv_a_proj_with_mqa", spec.latent_dim(), model.hidden));
  kv_norm_ = loader.Vector(prefix + "kv_a_layernorm.weight", spec.kv_lora_rank);
  LoadHeads(loader.Weight(prefix + "kv_b_proj", spec.heads * (spec.nope_dim + spec.value_dim),
                          spec.kv_lora_rank),
            loader);
  const WeightSource o =
      loader.Weight(prefix + "o_proj", model.hidden, spec.heads * spec.value_dim);
  o_ = loader.EachShard([&](int32_t rank) {
    const parallel::Shard own = out_cut_.Of(rank);
    return loader.Matrix(o.Rows(own.begin, own.size()));
  });
  std::vector<int64_t> ends;
  for (int32_t r = 0; r < ranks; ++r)
    ends.push_back(HeadsOf(spec, {r, ranks}).end * spec.value_dim);
  values_cut_ = ColumnCut(std::move(ends), loader.tensor_rank().rank);
}

void MlaAttention::LoadHeads(const WeightSource& kv_b, WeightLoader& loader) {
  using Matrices = std::vector<compute::PackedMatrix>;
  const int64_t head_rows = spec_.nope_dim + spec_.value_dim;
  std::tie(k_b_, v_b_) = loader.EachShard([&](int32_t rank) {
    const parallel::Shard own = HeadsOf(spec_, {rank, loader.tensor_rank().size});
    std::pair<Matrices, Matrices> made;
    for (int64_t head = own.begin; head < own.end; ++head) {
      // Transposed, block-scaled codes would not lie along k: this one is widened.
      made.first.push_back(loader.Matrix(kv_b.Rows(head * head_rows, spec_.nope_dim).Transposed(),
                                         compute::PlainFormat(loader.kernels())));
      made.second.push_back(
          loader.Matrix(kv_b.Rows(head * head_rows + spec_.nope_dim, spec_.value_dim)));
    }
    return made;
  });
}

// [T, own heads (nope + rope)] F32.
TensorView MlaAttention::Queries(const RankContext& rank, const TensorView& x) const {
  const int64_t tokens = x.dim(0);
  Workspace& ws = *rank.workspace;
  const TensorView q = ws.TakeTensor(DType::kF32, {tokens, q_b_.n()});
  if (spec_.q_lora_rank == 0) {
    rank.MatMul(x, q_b_, q);
    return q;
  }
  const TensorView latent = ws.TakeTensor(DType::kF32, {tokens, spec_.q_lora_rank});
  const TensorView normed =
      ws.TakeTensor(rank.exec.precision().activations, {tokens, spec_.q_lora_rank});
  rank.MatMul(x, q_a_, latent);
  RmsNorm(rank.exec, latent, q_norm_.View(DType::kF32, {spec_.q_lora_rank}), spec_.norm_eps,
          normed);
  rank.MatMul(normed, q_b_, q);
  return q;
}

// Per head q_nope W_UK, then the rotated part: [T, own heads (kv_lora + rope)] F32.
TensorView MlaAttention::LatentQueries(const RankContext& rank, const TensorView& q) const {
  const int64_t tokens = q.dim(0);
  Workspace& ws = *rank.workspace;
  const HeadPart nope{
      .rows = ws.TakeTensor(rank.exec.precision().activations, {tokens, heads_ * spec_.nope_dim}),
      .heads = heads_};
  const TensorView latent = ws.TakeTensor(DType::kF32, {tokens, heads_ * spec_.latent_dim()});
  const auto part = [&](const TensorView& rows, int64_t first, int64_t width) {
    return HeadPart{.rows = rows, .heads = heads_, .first = first, .width = width};
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
  rank.MatMul(x, kv_a_, kv);
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
  const TensorView latents = Latents(rank, rope, x);
  const TensorView q = Queries(rank, x);
  Rope(rank.exec, {.rows = q, .heads = heads_, .first = spec_.nope_dim, .width = spec_.rope_dim},
       compute::RopePairs::kInterleaved, rope);
  const compute::AttentionShape attention{.q_heads = heads_,
                                          .kv_heads = 1,
                                          .key_dim = spec_.latent_dim(),
                                          .value_dim = spec_.kv_lora_rank,
                                          .scale = spec_.scale};
  const TensorView attended = ws.TakeTensor(activations, {tokens, heads_ * spec_.kv_lora_rank});
  Attend(rank, batch, layer, attention, {.q = LatentQueries(rank, q), .k = latents, .v = {}},
         attended);
  rank.Poll();
  const TensorView values = ws.TakeTensor(activations, {tokens, spec_.heads * spec_.value_dim});
  MatMulHeads(rank.exec, {.rows = attended, .heads = heads_}, v_b_,
              {.rows = values_cut_.Own(values), .heads = heads_});
  values_cut_.Gather(rank, values);
  rank.MatMul(values, o_, out_cut_.Own(h), /*accumulate=*/true);
  out_cut_.Gather(rank, h);
}

}  // namespace wideload::model
