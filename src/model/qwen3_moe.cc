#include "model/qwen3_moe.h"

#include <cmath>
#include <utility>
#include <vector>

#include "checkpoint/rope_table.h"

namespace wideload::model {
namespace {

using checkpoint::ModelConfig;
using compute::PackedMatrix;

struct LayerWeights {
  Buffer input_norm;       // [H]
  PackedMatrix qkv;        // [(q_heads + 2 kv_heads) D, H]
  Buffer q_norm;           // [D]
  Buffer k_norm;           // [D]
  PackedMatrix o;          // [H, q_heads D]
  Buffer post_norm;        // [H]
  int32_t moe_index = -1;  // position among the MoE layers, or -1: dense
  moe::MoeWeights moe;
  compute::ExpertWeights mlp;  // of a dense layer: gate_up [2 I, H], down [H, I]
};

class Qwen3Moe final : public Model {
 public:
  Qwen3Moe(const ModelConfig& config, WeightLoader& loader, int64_t max_positions);

  const ModelShape& shape() const override { return shape_; }
  TensorView Forward(const RankContext& rank, const Batch& batch) const override;

 private:
  LayerWeights LoadLayer(WeightLoader& loader, int64_t layer);
  void TransformerLayer(const RankContext& rank, const Batch& batch, int64_t layer,
                        const TensorView& h) const;
  TensorView Attention(const RankContext& rank, const Batch& batch, int64_t layer,
                       const TensorView& x) const;
  TensorView Norm(const Buffer& weight) const {
    return weight.View(DType::kF32, {config_.hidden_size});
  }
  TensorView HeadNorm(const Buffer& weight) const {
    return weight.View(DType::kF32, {config_.head_dim});
  }

  ModelConfig config_;
  ModelShape shape_;
  float eps_;
  Buffer embedding_;  // [V, H] as stored
  DType embedding_dtype_;
  std::vector<LayerWeights> layers_;
  Buffer final_norm_;     // [H]
  PackedMatrix lm_head_;  // [V, H]
  checkpoint::RopeTables rope_;
};

std::string LayerName(int64_t layer, std::string_view rest) {
  return fmt::format("model.layers.{}.{}", layer, rest);
}

Qwen3Moe::Qwen3Moe(const ModelConfig& config, WeightLoader& loader, int64_t max_positions)
    : config_(config),
      eps_(static_cast<float>(config.rms_norm_eps)),
      rope_(loader.Rope(config.rope, config.head_dim, max_positions)) {
  const ModelConfig& c = config_;
  const std::string embedding = "model.embed_tokens.weight";
  WeightLoader::Table table = loader.Raw(embedding, {c.vocab_size, c.hidden_size});
  embedding_ = std::move(table.data);
  embedding_dtype_ = table.dtype;
  const WeightLoader::Part head[] = {
      {c.tie_word_embeddings ? embedding : "lm_head.weight", c.vocab_size}};
  lm_head_ = loader.Matrix(head, c.hidden_size);
  final_norm_ = loader.Vector("model.norm.weight", c.hidden_size);
  shape_ = {.vocab_size = c.vocab_size, .max_positions = max_positions, .num_layers = c.num_layers};
  shape_.cache.assign(static_cast<size_t>(c.num_layers),
                      {.kv_heads = c.num_kv_heads, .key_dim = c.head_dim, .value_dim = c.head_dim});
  shape_.moe = {.hidden = c.hidden_size,
                .num_experts = c.num_experts,
                .top_k = c.top_k,
                .normalize = c.norm_topk_prob};
  for (int64_t layer = 0; layer < c.num_layers; ++layer)
    layers_.push_back(LoadLayer(loader, layer));
  shape_.weight_bytes = loader.packed_bytes();
}

LayerWeights Qwen3Moe::LoadLayer(WeightLoader& loader, int64_t layer) {
  const ModelConfig& c = config_;
  const auto name = [&](std::string_view rest) { return LayerName(layer, rest); };
  const int64_t q_rows = c.num_attention_heads * c.head_dim;
  const int64_t kv_rows = c.num_kv_heads * c.head_dim;
  LayerWeights w;
  w.input_norm = loader.Vector(name("input_layernorm.weight"), c.hidden_size);
  const WeightLoader::Part qkv[] = {{name("self_attn.q_proj.weight"), q_rows},
                                    {name("self_attn.k_proj.weight"), kv_rows},
                                    {name("self_attn.v_proj.weight"), kv_rows}};
  w.qkv = loader.Matrix(qkv, c.hidden_size);
  w.q_norm = loader.Vector(name("self_attn.q_norm.weight"), c.head_dim);
  w.k_norm = loader.Vector(name("self_attn.k_norm.weight"), c.head_dim);
  const WeightLoader::Part o[] = {{name("self_attn.o_proj.weight"), c.hidden_size}};
  w.o = loader.Matrix(o, q_rows);
  w.post_norm = loader.Vector(name("post_attention_layernorm.weight"), c.hidden_size);
  const auto load_mlp = [&](const std::string& prefix, int64_t width) {
    return loader.Expert({.gate = prefix + "gate_proj.weight",
                          .up = prefix + "up_proj.weight",
                          .down = prefix + "down_proj.weight"},
                         c.hidden_size, width);
  };
  if (!c.IsMoeLayer(layer)) {
    w.mlp = load_mlp(name("mlp."), c.intermediate_size);
    return w;
  }
  w.moe_index = static_cast<int32_t>(shape_.moe.layers.size());
  shape_.moe.layers.push_back(static_cast<int32_t>(layer));
  const WeightLoader::Part router[] = {{name("mlp.gate.weight"), c.num_experts}};
  w.moe.router = loader.Matrix(router, c.hidden_size, compute::WeightFormat::kF32);
  for (int64_t e = 0; e < c.num_experts; ++e)
    w.moe.experts.push_back(
        load_mlp(name(fmt::format("mlp.experts.{}.", e)), c.moe_intermediate_size));
  return w;
}

TensorView Qwen3Moe::Forward(const RankContext& rank, const Batch& batch) const {
  const auto tokens = static_cast<int64_t>(batch.ids.size());
  const auto wanted = static_cast<int64_t>(batch.logits_rows.size());
  Workspace& ws = *rank.workspace;
  const TensorView h = ws.TakeTensor(DType::kF32, {tokens, config_.hidden_size});
  Embed(rank.exec, embedding_.View(embedding_dtype_, {config_.vocab_size, config_.hidden_size}),
        batch.ids, h);
  for (int64_t layer = 0; layer < config_.num_layers; ++layer)
    TransformerLayer(rank, batch, layer, h);

  const TensorView last = ws.TakeTensor(DType::kF32, {wanted, config_.hidden_size});
  for (int64_t i = 0; i < wanted; ++i)
    std::copy_n(h.row<float>(batch.logits_rows[static_cast<size_t>(i)]), config_.hidden_size,
                last.row<float>(i));
  const TensorView x =
      ws.TakeTensor(rank.exec.precision().activations, {wanted, config_.hidden_size});
  const TensorView logits = ws.TakeTensor(DType::kF32, {wanted, config_.vocab_size});
  RmsNorm(rank.exec, last, Norm(final_norm_), eps_, x);
  MatMul(rank.exec, x, lm_head_, logits);
  return logits;
}

// h [T, H] F32 is the residual stream: h += attention(rms(h)); h += mlp(rms(h)).
void Qwen3Moe::TransformerLayer(const RankContext& rank, const Batch& batch, int64_t layer,
                                const TensorView& h) const {
  const LayerWeights& w = layers_[static_cast<size_t>(layer)];
  const DType narrow = rank.exec.precision().activations;
  Workspace& ws = *rank.workspace;
  const int64_t tokens = h.dim(0);

  const TensorView x = ws.TakeTensor(narrow, {tokens, config_.hidden_size});
  RmsNorm(rank.exec, h, Norm(w.input_norm), eps_, x);
  MatMul(rank.exec, Attention(rank, batch, layer, x), w.o, h, /*accumulate=*/true);

  if (w.moe_index >= 0) {
    const TensorView x32 = ws.TakeTensor(DType::kF32, {tokens, config_.hidden_size});
    RmsNorm(rank.exec, h, Norm(w.post_norm), eps_, x32);
    rank.moe->Forward(rank.exec, ws, w.moe_index, w.moe, x32, h);
  } else {
    const TensorView gated = ws.TakeTensor(narrow, {tokens, config_.intermediate_size});
    RmsNorm(rank.exec, h, Norm(w.post_norm), eps_, x);
    MatMulGated(rank.exec, x, w.mlp.gate_up(), {}, gated);
    MatMul(rank.exec, gated, w.mlp.down(), h, /*accumulate=*/true);
  }
}

// softmax(rope(rms(q)) rope(rms(k))^T / sqrt(D)) v per head, over the cache. x [T, H] -> [T,
// q_heads D], both compute dtype.
TensorView Qwen3Moe::Attention(const RankContext& rank, const Batch& batch, int64_t layer,
                               const TensorView& x) const {
  const LayerWeights& w = layers_[static_cast<size_t>(layer)];
  const int64_t heads = config_.num_attention_heads;
  const int64_t kv_heads = config_.num_kv_heads;
  const int64_t dim = config_.head_dim;
  const int64_t tokens = x.dim(0);
  const TensorView qkv =
      rank.workspace->TakeTensor(DType::kF32, {tokens, (heads + 2 * kv_heads) * dim});
  const TensorView y =
      rank.workspace->TakeTensor(rank.exec.precision().activations, {tokens, heads * dim});
  MatMul(rank.exec, x, w.qkv, qkv);
  const auto columns = [&](int64_t first, int64_t count) {
    return TensorView(DType::kF32, {tokens, count * dim}, qkv.data<float>() + first * dim,
                      qkv.row_stride());
  };
  const TensorView q = columns(0, heads);
  const TensorView k = columns(heads, kv_heads);
  const TensorView v = columns(heads + kv_heads, kv_heads);
  const compute::HeadPart q_part{.rows = q, .heads = heads};
  const compute::HeadPart k_part{.rows = k, .heads = kv_heads};
  const compute::RopeTable table{rope_.cos(), rope_.sin()};
  RmsNormHeads(rank.exec, q_part, HeadNorm(w.q_norm), eps_);
  RmsNormHeads(rank.exec, k_part, HeadNorm(w.k_norm), eps_);
  Rope(rank.exec, q_part, compute::RopePairs::kHalfSplit, table, batch.positions);
  Rope(rank.exec, k_part, compute::RopePairs::kHalfSplit, table, batch.positions);
  const compute::PagedKv cache{rank.cache->Keys(layer), rank.cache->Values(layer)};
  StoreKv(rank.exec, k, v, batch.sequences, cache);
  const compute::AttentionShape attention{.q_heads = heads,
                                          .kv_heads = kv_heads,
                                          .key_dim = dim,
                                          .value_dim = dim,
                                          .scale = 1.0F / std::sqrt(static_cast<float>(dim))};
  PagedAttention(rank.exec, attention, q, batch.sequences, cache, y);
  return y;
}

}  // namespace

int64_t Qwen3MoeWeightBytes(const ModelConfig& c, compute::KernelSet kernels) {
  const compute::WeightFormat format = compute::PlainFormat(kernels);
  const auto packed = [&](int64_t n, int64_t k) {
    return compute::PackedShape{.kernels = kernels, .format = format, .n = n, .k = k}.num_bytes();
  };
  const auto mlp = [&](int64_t width) {
    return compute::ExpertShape{
        .kernels = kernels, .format = format, .hidden = c.hidden_size, .inner = width}
        .num_bytes();
  };
  const int64_t q_rows = c.num_attention_heads * c.head_dim;
  const int64_t attention = packed(q_rows + 2 * c.num_kv_heads * c.head_dim, c.hidden_size) +
                            packed(c.hidden_size, q_rows);
  const int64_t routed =
      compute::PackedShape{.kernels = kernels, .n = c.num_experts, .k = c.hidden_size}.num_bytes() +
      c.num_experts * mlp(c.moe_intermediate_size);
  const int64_t embedding =
      c.vocab_size * c.hidden_size * DTypeBytes(c.dtype) + packed(c.vocab_size, c.hidden_size);
  int64_t total = embedding + c.num_layers * attention;
  for (int64_t layer = 0; layer < c.num_layers; ++layer)
    total += c.IsMoeLayer(layer) ? routed : mlp(c.intermediate_size);
  return total;
}

std::unique_ptr<Model> LoadQwen3Moe(const ModelConfig& config, WeightLoader& loader,
                                    int64_t max_positions) {
  return std::make_unique<Qwen3Moe>(config, loader, max_positions);
}

}  // namespace wideload::model
