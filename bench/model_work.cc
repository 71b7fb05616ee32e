#include "model_work.h"

#include <algorithm>
#include <variant>

namespace wideload::bench {
namespace {

using model::GqaSpec;
using model::MlaSpec;

double Product(int64_t n, int64_t k) { return 2.0 * static_cast<double>(n * k); }

double ProjectionFlops(const GqaSpec& spec, int64_t hidden) {
  return Product((spec.q_heads + 2 * spec.kv_heads) * spec.head_dim, hidden) +
         Product(hidden, spec.q_heads * spec.head_dim);
}

// In its absorbed form.
double ProjectionFlops(const MlaSpec& spec, int64_t hidden) {
  const int64_t query = spec.heads * spec.query_dim();
  const double queries = spec.q_lora_rank > 0
                             ? Product(spec.q_lora_rank, hidden) + Product(query, spec.q_lora_rank)
                             : Product(query, hidden);
  return queries + Product(spec.latent_dim(), hidden) +
         Product(spec.heads * (spec.nope_dim + spec.value_dim), spec.kv_lora_rank) +
         Product(hidden, spec.heads * spec.value_dim);
}

double FlopsPerKey(const GqaSpec& spec) { return 2 * Product(spec.q_heads, spec.head_dim); }
double FlopsPerKey(const MlaSpec& spec) {
  return Product(spec.heads, spec.latent_dim() + spec.kv_lora_rank);
}

double MlpFlops(const model::ModelSpec& spec, const model::LayerSpec& layer) {
  if (layer.moe_index < 0) return 3 * Product(spec.hidden, layer.dense_width);
  return Product(spec.moe.num_experts, spec.hidden) +
         3 * Product(spec.hidden,
                     spec.moe.top_k() * spec.experts.width + spec.experts.shared_width);
}

}  // namespace

ModelWork::ModelWork(const model::Model& model, DType kv_dtype) {
  const model::ModelSpec& spec = model.spec();
  for (const model::LayerSpec& layer : spec.layers) {
    std::visit(
        [&](const auto& attention) {
          token_flops += ProjectionFlops(attention, spec.hidden);
          flops_per_key += FlopsPerKey(attention);
        },
        layer.attention);
    token_flops += MlpFlops(spec, layer);
  }
  head_flops = Product(spec.vocab_size, spec.hidden);
  num_experts = spec.moe.num_experts;
  kv_bytes_per_token = model::KvBytesPerToken(spec, kv_dtype);
  // Of the embedding, which is kept as it is stored (two bytes), an iteration reads a few rows.
  dense_bytes = static_cast<double>(model.weight_bytes() - 2 * spec.vocab_size * spec.hidden);
  for (int32_t layer = 0; layer < spec.moe.num_layers(); ++layer) {
    for (const compute::ExpertWeights& expert : model.Experts(layer, 0)) {
      expert_bytes = static_cast<double>(expert.bytes().size());
      dense_bytes -= expert_bytes;
    }
  }
}

double ModelWork::PromptFlops(int64_t tokens) const {
  const auto count = static_cast<double>(tokens);
  return count * token_flops + head_flops + count * (count + 1) / 2 * flops_per_key;
}

double ModelWork::Bytes(std::span<const int32_t> routed_counts) const {
  const auto touched = std::ranges::count_if(routed_counts, [](int32_t n) { return n > 0; });
  return dense_bytes + expert_bytes * static_cast<double>(touched);
}

}  // namespace wideload::bench
