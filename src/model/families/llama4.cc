// Llama 4, the language model alone or inside the multimodal checkpoint: chunked attention, layers
// without rotary positions, one expert a token whose weight scales its input, a shared expert.
// Source: the published config and modeling files.
#include "model/family.h"

namespace wideload::model {

using checkpoint::ConfigReader;
using checkpoint::ModelConfig;

namespace {

constexpr int64_t kMaxChunk = int64_t{1} << 27;

// For each layer whether it has rotary positions: no_rope_layers lists 1 for those that have; else
// every no_rope_layer_interval-th has none.
std::vector<bool> ReadRotaryLayers(ConfigReader& reader, int64_t num_layers) {
  const int64_t interval = reader.IntOr("no_rope_layer_interval", 4, 1, 4096);
  std::vector<bool> rotary;
  for (int64_t layer = 0; layer < num_layers; ++layer)
    rotary.push_back((layer + 1) % interval != 0);
  const Json* list = reader.Find("no_rope_layers");
  if (list == nullptr || (list->is_array() && list->empty())) return rotary;
  if (reader.IsFaulty({"num_hidden_layers"})) return rotary;
  const std::string allowed = fmt::format("an array of {} times 0 or 1", num_layers);
  if (!list->is_array() || list->size() != static_cast<size_t>(num_layers))
    reader.fields().Refuse("no_rope_layers", allowed);
  for (size_t i = 0; i < rotary.size(); ++i) {
    if ((*list)[i] != 0 && (*list)[i] != 1) reader.fields().Refuse("no_rope_layers", allowed);
    rotary[i] = (*list)[i] == 1;
  }
  return rotary;
}

void ReadAttention(ConfigReader& reader, ModelSpec& spec) {
  const std::vector<bool> rotary = ReadRotaryLayers(reader, spec.num_layers());
  const bool has_norm = reader.BoolOr("use_qk_norm", true);
  const bool has_bias = reader.BoolOr("attention_bias", false);
  const int64_t chunk = reader.IntOr("attention_chunk_size", 0, 1, kMaxChunk);
  AttentionTemperature temperature;
  // Published files have a boolean or a number here.
  const Json* tuned = reader.Find("attn_temperature_tuning");
  if (tuned != nullptr && !tuned->is_boolean() && !tuned->is_number_integer())
    reader.fields().Refuse("attn_temperature_tuning", "true, false or an integer");
  if (tuned != nullptr && *tuned != false && *tuned != 0)
    temperature = {.scale = reader.NumberOr("attn_scale", 0.1, 0.0, 1e3),
                   .floor = reader.NumberOr("floor_scale", 8192, 1.0, 1e9)};
  const std::vector<std::string> types =
      ReadLayerTypes(reader, spec.num_layers(), {"full_attention", "chunked_attention"});
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    auto& attention = std::get<GqaSpec>(spec.layers[i].attention);
    attention.is_rotary = rotary[i];
    attention.rope_pairs = compute::RopePairs::kInterleaved;
    attention.qkv_bias = attention.o_bias = has_bias;
    attention.qk_norm = has_norm ? QkNorm::kAfterRope : QkNorm::kNone;
    if (!rotary[i]) attention.temperature = temperature;
    const bool is_chunked = types.empty() ? rotary[i] : types[i] == "chunked_attention";
    if (is_chunked) attention.chunk = chunk;
  }
}

}  // namespace

ModelSpec ReadLlama4(ConfigReader& reader, ModelConfig& config) {
  RequireExperts(reader, config);
  // intermediate_size is an expert's.
  config.moe_intermediate_size = config.intermediate_size;
  config.intermediate_size =
      reader.IntOr("intermediate_size_mlp", config.intermediate_size, 1, int64_t{1} << 20);
  ModelSpec spec = PlainSpec(config);
  ReadAttention(reader, spec);
  spec.moe.router.score = compute::RouterScore::kSigmoid;
  spec.moe.weights_scale_inputs = true;
  if (config.top_k != 1 && config.num_experts > 0)
    reader.Unsupported(fmt::format("{} is {}; implemented is one expert a token",
                                   reader.fields().Where("num_experts_per_tok"), config.top_k));
  spec.experts.shared_width = config.moe_intermediate_size;
  spec.expert_storage = ExpertStorage::kInputMajor;
  spec.names.dense_mlp = "feed_forward.";
  spec.names.router = "feed_forward.router";
  spec.names.experts = "feed_forward.experts.";
  spec.names.shared = "feed_forward.shared_expert.";
  if (reader.is_nested()) {
    spec.names.prefix = "language_model.";
    spec.names.others = {"vision_model.", "multi_modal_projector."};
  }
  return spec;
}

}  // namespace wideload::model
