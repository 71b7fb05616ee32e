#include "checkpoint/expert_layers.h"

#include <algorithm>
#include <set>

#include "base/file.h"
#include "base/json.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/expert_bytes.h"
#include "checkpoint/weight_sums.h"

namespace wideload::checkpoint {
namespace {

ExpertLayers OfWeights(const std::string& folder, const ModelConfig& config) {
  const Checkpoint checkpoint(folder);
  std::set<int32_t> layers;
  std::set<int32_t> extra;
  uint64_t bytes = 0;
  for (const std::string_view name : checkpoint.Names()) {
    const int64_t layer = LayerOf(name);
    if (layer < 0 || PartOf(name, 0) != "experts") continue;
    (layer < config.num_layers ? layers : extra).insert(static_cast<int32_t>(layer));
    if (layer < config.num_layers)
      bytes += static_cast<uint64_t>(checkpoint.Peek(name).num_bytes());
  }
  const uint64_t experts = layers.size() * static_cast<uint64_t>(config.num_experts);
  return {.layers = {layers.begin(), layers.end()},
          .extra_layers = {extra.begin(), extra.end()},
          .expert_bytes = experts == 0 ? 0 : bytes / experts,
          .storage = "as stored",
          .from_weights = true};
}

// Latent attention keeps one latent vector and the rotated part of the key.
std::optional<uint64_t> KvBytesPerToken(const JsonFields& fields) {
  constexpr int64_t kMax = 1 << 24;
  constexpr uint64_t kBytes = 2;
  const auto get = [&](const char* name) {
    return static_cast<uint64_t>(fields.IntOr(name, 0, 0, kMax));
  };
  const uint64_t layers = get("num_hidden_layers");
  if (get("kv_lora_rank") > 0)
    return layers * (get("kv_lora_rank") + get("qk_rope_head_dim")) * kBytes;
  const uint64_t heads = get("num_attention_heads");
  const uint64_t kv_heads = fields.Has("num_key_value_heads") ? get("num_key_value_heads") : heads;
  if (heads == 0) return std::nullopt;
  const uint64_t size = fields.Has("head_dim") ? get("head_dim") : get("hidden_size") / heads;
  return layers * 2 * kv_heads * size * kBytes;
}

// ModelOpt's older exports describe the quantization in a file of its own.
Json WithQuantization(Json fields, const std::string& folder) {
  const std::string path = folder + "/hf_quant_config.json";
  if (fields.contains("quantization_config") || !FileExists(path)) return fields;
  const Json json = ReadJsonFile(path);
  const JsonFields file(json, path);
  if (file.Has("quantization")) fields["quantization_config"] = file.Object("quantization").json();
  return fields;
}

ExpertLayers OfConfig(const std::string& folder, const ModelConfig& config) {
  const std::string path = folder + "/config.json";
  const Json json = ReadJsonFile(path);
  const JsonFields top(json, path);
  const JsonFields fields = top.Has("text_config") ? top.Object("text_config") : top;
  ExpertLayers found{.layers = config.moe_layers};
  for (int64_t i = 0; i < config.num_extra_layers; ++i)
    found.extra_layers.push_back(static_cast<int32_t>(config.num_layers + i));
  // gate, up and down projection
  const double weights = 3.0 * static_cast<double>(config.hidden_size) *
                         static_cast<double>(config.moe_intermediate_size);
  const Json quantized = WithQuantization(fields.json(), folder);
  const StoredExpert stored =
      StoredExpertOf(JsonFields(quantized, path), static_cast<uint64_t>(weights), config.dtype);
  found.expert_bytes = stored.bytes;
  found.storage = stored.storage;
  return found;
}

}  // namespace

ExpertLayers FindExpertLayers(const std::string& folder, const ModelConfig& config) {
  const bool has_weights = FileExists(folder + "/model.safetensors") ||
                           FileExists(folder + "/model.safetensors.index.json");
  const std::string path = folder + "/config.json";
  const Json json = ReadJsonFile(path);
  const JsonFields top(json, path);
  ExpertLayers found = has_weights ? OfWeights(folder, config) : OfConfig(folder, config);
  found.num_layers = config.num_layers;
  found.kv_bytes_per_token =
      KvBytesPerToken(top.Has("text_config") ? top.Object("text_config") : top);
  return found;
}

}  // namespace wideload::checkpoint
