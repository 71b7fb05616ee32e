#include "model/spec.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace wideload::model {

ModelSpec PlainSpec(const checkpoint::ModelConfig& config) {
  ModelSpec spec{.vocab_size = config.vocab_size,
                 .hidden = config.hidden_size,
                 .norm_eps = static_cast<float>(config.rms_norm_eps),
                 .tied_embeddings = config.tie_word_embeddings,
                 .rope = config.rope,
                 .max_positions = config.max_position_embeddings,
                 .num_extra_layers = config.num_extra_layers};
  spec.rotary_dim =
      static_cast<int64_t>(static_cast<double>(config.head_dim) * config.rope.rotary_fraction);
  spec.moe.hidden = config.hidden_size;
  spec.moe.num_experts = config.moe_layers.empty() ? 0 : config.num_experts;
  spec.moe.router = {.top_k = config.top_k, .normalize = false};
  spec.moe.layers = config.moe_layers;
  spec.experts.width = config.moe_intermediate_size;
  const LayerSpec layer{
      .attention = GqaSpec{.q_heads = config.num_attention_heads,
                           .kv_heads = config.num_kv_heads,
                           .head_dim = config.head_dim,
                           .scale = 1.0F / std::sqrt(static_cast<float>(config.head_dim))},
      .dense_width = config.intermediate_size};
  spec.layers.assign(static_cast<size_t>(config.num_layers), layer);
  for (size_t i = 0; i < config.moe_layers.size(); ++i)
    spec.layers[static_cast<size_t>(config.moe_layers[i])].moe_index = static_cast<int32_t>(i);
  return spec;
}

HeadShard HeadsOf(const GqaSpec& spec, const TensorRank& rank) {
  const int64_t group = spec.q_heads / spec.kv_heads;
  if (rank.size <= spec.kv_heads) {
    const parallel::Shard kv = parallel::ShardOf(spec.kv_heads, rank.size, rank.rank);
    return {.q = {kv.begin * group, kv.end * group}, .kv = kv};
  }
  int64_t kv_head = 0;
  while (parallel::ShardOf(rank.size, spec.kv_heads, kv_head).end <= rank.rank) ++kv_head;
  const parallel::Shard ranks = parallel::ShardOf(rank.size, spec.kv_heads, kv_head);
  const parallel::Shard q = parallel::ShardOf(group, ranks.size(), rank.rank - ranks.begin);
  return {.q = {kv_head * group + q.begin, kv_head * group + q.end}, .kv = {kv_head, kv_head + 1}};
}

parallel::Shard HeadsOf(const MlaSpec& spec, const TensorRank& rank) {
  return parallel::ShardOf(spec.heads, rank.size, rank.rank);
}

void CheckTensorParallel(const ModelSpec& spec, int32_t size) {
  const auto require = [&](int64_t found, std::string_view what) {
    if (found < size)
      Throw(ErrorKind::kInvalid,
            "tensor_parallel_size is {}; a layer of this model has {} {}, and each rank needs one",
            size, found, what);
  };
  for (const LayerSpec& layer : spec.layers) {
    if (const auto* gqa = std::get_if<GqaSpec>(&layer.attention))
      require(gqa->q_heads, "attention heads");
    else
      require(std::get<MlaSpec>(layer.attention).heads, "attention heads");
    if (layer.moe_index < 0) require(layer.dense_width, "columns in its MLP");
  }
  require(spec.hidden, "hidden columns");
  require(spec.vocab_size, "ids in the vocabulary");
}

void CheckExpertParts(const ModelSpec& spec, int32_t parts) {
  if (parts == 1) return;
  const std::string said = fmt::format("moe_tensor_parallel_size is {}", parts);
  if (spec.moe.num_experts == 0) Throw(ErrorKind::kInvalid, "{}; this model has no experts", said);
  const int64_t columns = std::min(spec.experts.width, spec.hidden);
  if (columns < parts)
    Throw(ErrorKind::kInvalid,
          "{}; the experts of this model have {} columns, and each rank needs "
          "one",
          said, columns);
}

std::vector<kv::LayerCacheShape> CacheShapes(const ModelSpec& spec, const TensorRank& rank,
                                             std::optional<parallel::Shard> kept) {
  std::vector<kv::LayerCacheShape> shapes;
  for (const LayerSpec& layer : spec.layers) {
    if (const auto* mla = std::get_if<MlaSpec>(&layer.attention)) {
      shapes.push_back({.kv_heads = 1, .key_dim = mla->latent_dim()});
      continue;
    }
    const auto& gqa = std::get<GqaSpec>(layer.attention);
    // The start of a chunk is less than a chunk away.
    const int64_t window = gqa.window > 0 && gqa.chunk > 0 ? std::min(gqa.window, gqa.chunk)
                                                           : std::max(gqa.window, gqa.chunk);
    shapes.push_back({.kv_heads = HeadsOf(gqa, rank).kv.size(),
                      .key_dim = gqa.head_dim,
                      .value_dim = gqa.head_dim,
                      .window = window});
  }
  if (!kept) return shapes;
  for (int64_t layer = 0; layer < spec.num_layers(); ++layer) {
    kv::LayerCacheShape& shape = shapes[static_cast<size_t>(layer)];
    if (layer < kept->begin || layer >= kept->end) shape = {.window = shape.window};
  }
  return shapes;
}

int64_t KvBytesPerToken(const ModelSpec& spec, DType dtype) {
  int64_t elements = 0;
  for (const kv::LayerCacheShape& layer : CacheShapes(spec)) elements += layer.ElementsPerToken();
  return elements * DTypeBytes(dtype);
}

namespace {

int64_t AttentionElements(const LayerSpec& layer) {
  if (const auto* mla = std::get_if<MlaSpec>(&layer.attention))
    return 2 * mla->q_lora_rank + mla->latent_dim() +
           mla->heads * (mla->query_dim() + mla->nope_dim + mla->latent_dim() + mla->kv_lora_rank +
                         mla->value_dim);
  const auto& gqa = std::get<GqaSpec>(layer.attention);
  return 2 * (gqa.q_heads + gqa.kv_heads) * gqa.head_dim;
}

int64_t MlpElements(const ModelSpec& spec, const LayerSpec& layer, int32_t expert_parts) {
  if (layer.moe_index < 0) return layer.dense_width;
  const ExpertsSpec& experts = spec.experts;
  // Each chosen expert's activations are somewhere, and rows come from other ranks as they go
  // there; of divided experts they are on the ranks of all parts, twice.
  const int64_t copies = expert_parts == 1 ? 1 : 2 * expert_parts;
  return 2 * spec.hidden + spec.moe.num_experts + spec.moe.top_k() * (copies * experts.width + 2) +
         experts.shared_width;
}

}  // namespace

int64_t ScratchBytesPerToken(const ModelSpec& spec, int32_t expert_parts) {
  int64_t most = 0;
  for (const LayerSpec& layer : spec.layers)
    most =
        std::max(most, std::max(AttentionElements(layer), MlpElements(spec, layer, expert_parts)));
  return (2 * spec.hidden + spec.rotary_dim + most) * DTypeBytes(DType::kF32);
}

ContextRow ContextRowOf(const LayerSpec& layer) {
  if (const auto* mla = std::get_if<MlaSpec>(&layer.attention))
    return {.asked = (mla->heads + 1) * mla->latent_dim(),
            .answered = mla->heads * (mla->kv_lora_rank + 2)};
  const auto& gqa = std::get<GqaSpec>(layer.attention);
  return {.asked = (gqa.q_heads + 2 * gqa.kv_heads) * gqa.head_dim,
          .answered = gqa.q_heads * (gqa.head_dim + 2)};
}

int64_t ContextBytesPerToken(const ModelSpec& spec) {
  int64_t most = 0;
  for (const LayerSpec& layer : spec.layers) {
    const ContextRow row = ContextRowOf(layer);
    most = std::max(most, row.asked + 2 * row.answered);
  }
  return most * DTypeBytes(DType::kF32);
}

std::string LayerPrefix(const TensorNames& names, int64_t layer) {
  return fmt::format("{}model.layers.{}.", names.prefix, layer);
}

}  // namespace wideload::model
