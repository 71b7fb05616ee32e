#include "checkpoint/expert_layers.h"

#include <algorithm>
#include <set>

#include "base/file.h"
#include "base/json.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/inspection.h"

namespace wideload::checkpoint {
namespace {

constexpr int64_t kMaxLayers = 100000;

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
          .from_weights = true};
}

// Llama 4 lists its layers or tells the step between them.
bool IsListed(const JsonFields& fields, int64_t layer) {
  const Json* list = fields.Find("moe_layers");
  if (list != nullptr && list->is_array() && !list->empty())
    return std::find(list->begin(), list->end(), Json(layer)) != list->end();
  const int64_t step = fields.IntOr("interleave_moe_layer_step", 1, 1, kMaxLayers);
  return (layer + 1) % step == 0;
}

// Bits of one expert weight, scales included.
double BitsPerWeight(const JsonFields& fields, const ModelConfig& config) {
  const double plain = 8.0 * static_cast<double>(DTypeBytes(config.dtype));
  if (!fields.Has("quantization_config")) return plain;
  const JsonFields quantization = fields.Object("quantization_config");
  const std::string method = quantization.StringOr("quant_method", "");
  if (method == "fp8") return 8;
  if (method == "mxfp4") return 4 + 8.0 / 32;  // a byte of scale per 32 weights
  return quantization.NumberOr("bits", plain, 1, 64);
}

ExpertLayers OfConfig(const std::string& folder, const ModelConfig& config) {
  const std::string path = folder + "/config.json";
  const Json json = ReadJsonFile(path);
  const JsonFields top(json, path);
  const JsonFields fields = top.Has("text_config") ? top.Object("text_config") : top;
  const int64_t first = fields.IntOr("first_k_dense_replace", 0, 0, kMaxLayers);
  const int64_t step = fields.IntOr("moe_layer_freq", 1, 1, kMaxLayers);
  ExpertLayers found;
  for (int64_t layer = 0; layer < config.num_layers; ++layer)
    if (config.IsMoeLayer(layer) && layer >= first && layer % step == 0 && IsListed(fields, layer))
      found.layers.push_back(static_cast<int32_t>(layer));
  const int64_t extra = fields.IntOr("num_nextn_predict_layers", 0, 0, kMaxLayers);
  for (int64_t i = 0; i < extra; ++i)
    found.extra_layers.push_back(static_cast<int32_t>(config.num_layers + i));
  // gate, up and down projection
  const double weights = 3.0 * static_cast<double>(config.hidden_size) *
                         static_cast<double>(config.moe_intermediate_size);
  found.expert_bytes = static_cast<uint64_t>(weights * BitsPerWeight(fields, config) / 8);
  return found;
}

}  // namespace

ExpertLayers FindExpertLayers(const std::string& folder, const ModelConfig& config) {
  const bool has_weights = FileExists(folder + "/model.safetensors") ||
                           FileExists(folder + "/model.safetensors.index.json");
  return has_weights ? OfWeights(folder, config) : OfConfig(folder, config);
}

}  // namespace wideload::checkpoint
