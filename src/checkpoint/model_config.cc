#include "checkpoint/model_config.h"

#include <algorithm>
#include <array>

#include "base/file.h"
#include "base/json.h"
#include "checkpoint/config_unsupported.h"
#include "checkpoint/rope_config.h"
#include "checkpoint/token_ids.h"

namespace wideload::checkpoint {
namespace {

// Upper limits far above any published model; with CheckProducts they keep arithmetic in int64.
constexpr int64_t kMaxVocab = int64_t{1} << 24;
constexpr int64_t kMaxHidden = int64_t{1} << 18;
constexpr int64_t kMaxLayers = 4096;
constexpr int64_t kMaxHeads = 4096;
constexpr int64_t kMaxHeadDim = 4096;
constexpr int64_t kMaxIntermediate = int64_t{1} << 20;
constexpr int64_t kMaxExperts = int64_t{1} << 16;
constexpr int64_t kMaxPositions = int64_t{1} << 27;
constexpr int64_t kMaxTokenId = (int64_t{1} << 31) - 1;
constexpr double kMaxParameters = 281474976710656.0;                // 2^48
constexpr double kMaxKvBytesAtFullContext = 4611686018427387904.0;  // 2^62

// The integer under whichever of `names` is present; two that differ are refused.
std::optional<int64_t> EitherInt(const JsonFields& fields,
                                 std::initializer_list<std::string_view> names, int64_t max) {
  std::optional<int64_t> value;
  std::string_view found;
  for (const std::string_view name : names) {
    if (!fields.Has(name)) continue;
    const int64_t number = fields.Int(name, 0, max);
    if (value && *value != number)
      fields.Refuse(name, fmt::format("equal to {}, which is {}", found, *value));
    value = number;
    found = name;
  }
  return value;
}

std::string ReadArchitecture(const JsonFields& fields) {
  const Json& names = fields.Required("architectures");
  if (!names.is_array() || names.size() != 1 || !names[0].is_string())
    fields.Refuse("architectures", "an array of exactly one name");
  return names[0].get<std::string>();
}

DType ReadDType(const JsonFields& fields) {
  std::optional<DType> dtype;
  for (const std::string_view name : {"dtype", "torch_dtype"}) {
    if (!fields.Has(name)) continue;
    const std::string text = fields.String(name);
    std::optional<DType> found;
    if (text == "bfloat16") found = DType::kBF16;
    if (text == "float16") found = DType::kF16;
    if (text == "float32") found = DType::kF32;
    if (!found) fields.Refuse(name, "bfloat16, float16 or float32");
    if (dtype && *dtype != *found) fields.Refuse(name, "the same as dtype");
    dtype = found;
  }
  return dtype.value_or(DType::kF32);
}

std::vector<int64_t> ReadMlpOnlyLayers(const JsonFields& fields, int64_t num_layers) {
  const Json* list = fields.Find("mlp_only_layers");
  std::vector<int64_t> layers;
  if (list == nullptr) return layers;
  const std::string allowed = fmt::format("an array of layer numbers in [0, {}]", num_layers - 1);
  if (!list->is_array()) fields.Refuse("mlp_only_layers", allowed);
  for (const Json& item : *list) {
    if (!item.is_number_unsigned() || item.get<uint64_t>() >= static_cast<uint64_t>(num_layers))
      fields.Refuse("mlp_only_layers", allowed);
    layers.push_back(item.get<int64_t>());
  }
  std::sort(layers.begin(), layers.end());
  layers.erase(std::unique(layers.begin(), layers.end()), layers.end());
  return layers;
}

void ReadAttention(const JsonFields& fields, ModelConfig& config) {
  config.num_attention_heads = fields.Int("num_attention_heads", 1, kMaxHeads);
  config.num_kv_heads = fields.Int("num_key_value_heads", 1, kMaxHeads);
  if (config.num_attention_heads % config.num_kv_heads != 0)
    fields.Refuse("num_key_value_heads",
                  fmt::format("a divisor of num_attention_heads, {}", config.num_attention_heads));
  if (fields.Has("head_dim")) {
    config.head_dim = fields.Int("head_dim", 2, kMaxHeadDim);
  } else {
    if (config.hidden_size % config.num_attention_heads != 0)
      fields.Refuse("head_dim", fmt::format("given, because hidden_size {} is no multiple of "
                                            "num_attention_heads {}",
                                            config.hidden_size, config.num_attention_heads));
    config.head_dim = config.hidden_size / config.num_attention_heads;
  }
  if (config.head_dim % 2 != 0 || config.head_dim > kMaxHeadDim)
    Throw(ErrorKind::kInvalid, "{} is {}; it must be even and at most {}", fields.Where("head_dim"),
          config.head_dim, kMaxHeadDim);
}

// These families have no dense MLP and call the width of an expert intermediate_size.
bool ExpertsUseIntermediateSize(const std::string& architecture) {
  constexpr std::array<std::string_view, 5> kFamilies = {"MixtralForCausalLM", "OlmoeForCausalLM",
                                                         "GptOssForCausalLM", "Llama4ForCausalLM",
                                                         "Llama4ForConditionalGeneration"};
  return std::find(kFamilies.begin(), kFamilies.end(), architecture) != kFamilies.end();
}

void ReadExperts(const JsonFields& fields, ModelConfig& config) {
  const std::optional<int64_t> num_experts =
      EitherInt(fields, {"num_experts", "num_local_experts", "n_routed_experts"}, kMaxExperts);
  const bool is_moe = config.architecture.find("Moe") != std::string::npos ||
                      fields.Has("num_experts_per_tok") || fields.Has("moe_intermediate_size");
  if (is_moe && !num_experts)
    fields.Refuse("num_experts", "present (num_local_experts and n_routed_experts mean the same)");
  config.num_experts = num_experts.value_or(0);
  if (config.num_experts > 0) {
    config.top_k = fields.Int("num_experts_per_tok", 1, config.num_experts);
    const bool shared_name =
        !fields.Has("moe_intermediate_size") && ExpertsUseIntermediateSize(config.architecture);
    config.moe_intermediate_size = fields.Int(
        shared_name ? "intermediate_size" : "moe_intermediate_size", 1, kMaxIntermediate);
    config.norm_topk_prob = fields.BoolOr("norm_topk_prob", false);
    config.decoder_sparse_step = fields.IntOr("decoder_sparse_step", 1, 1, kMaxLayers);
    config.mlp_only_layers = ReadMlpOnlyLayers(fields, config.num_layers);
  }
  if (config.NumMoeLayers() < config.num_layers || fields.Has("intermediate_size"))
    config.intermediate_size = fields.Int("intermediate_size", 1, kMaxIntermediate);
}

// Refuses sizes that are each plausible but whose products no machine could hold.
void CheckProducts(const JsonFields& fields, const ModelConfig& config) {
  const auto real = [](int64_t n) { return static_cast<double>(n); };
  const double mlp =
      3.0 * real(config.hidden_size) *
      (real(config.intermediate_size) +
       real(config.num_experts) * real(config.moe_intermediate_size) + real(config.num_experts));
  const double attention =
      4.0 * real(config.hidden_size) * real(config.num_attention_heads) * real(config.head_dim);
  const double parameters = real(config.num_layers) * (mlp + attention) +
                            2.0 * real(config.vocab_size) * real(config.hidden_size);
  if (parameters > kMaxParameters)
    Throw(ErrorKind::kInvalid,
          "{}: num_hidden_layers {}, hidden_size {}, num_attention_heads {}, head_dim {}, "
          "intermediate_size {}, num_experts {} and moe_intermediate_size {} make {:.3g} "
          "parameters; at most {:.3g} are allowed",
          fields.source(), config.num_layers, config.hidden_size, config.num_attention_heads,
          config.head_dim, config.intermediate_size, config.num_experts,
          config.moe_intermediate_size, parameters, kMaxParameters);
  const double kv_bytes = 8.0 * real(config.num_layers) * real(config.num_kv_heads) *
                          real(config.head_dim) * real(config.max_position_embeddings);
  if (kv_bytes > kMaxKvBytesAtFullContext)
    Throw(ErrorKind::kInvalid,
          "{}: max_position_embeddings is {}; with {} layers and {} KV heads of {} that is {:.3g} "
          "bytes of KV cache, at most {:.3g} are allowed",
          fields.source(), config.max_position_embeddings, config.num_layers, config.num_kv_heads,
          config.head_dim, kv_bytes, kMaxKvBytesAtFullContext);
}

}  // namespace

bool ModelConfig::IsMoeLayer(int64_t layer) const {
  WIDELOAD_CHECK(layer >= 0 && layer < num_layers, "layer {} of {}", layer, num_layers);
  return num_experts > 0 && (layer + 1) % decoder_sparse_step == 0 &&
         !std::binary_search(mlp_only_layers.begin(), mlp_only_layers.end(), layer);
}

int64_t ModelConfig::NumMoeLayers() const {
  int64_t count = 0;
  for (int64_t layer = 0; layer < num_layers; ++layer) count += IsMoeLayer(layer) ? 1 : 0;
  return count;
}

ModelConfigReading ParseModelConfig(std::string_view text, const std::string& source) {
  const Json json = ParseJson(text, source);
  const JsonFields top(json, source);
  const JsonFields fields = top.Has("text_config") ? top.Object("text_config") : top;
  ModelConfigReading reading;
  ModelConfig& config = reading.config;
  config.architecture = ReadArchitecture(top);
  config.model_type = top.StringOr("model_type", "");
  config.vocab_size = fields.Int("vocab_size", 1, kMaxVocab);
  config.hidden_size = fields.Int("hidden_size", 1, kMaxHidden);
  config.num_layers = fields.Int("num_hidden_layers", 1, kMaxLayers);
  config.max_position_embeddings = fields.Int("max_position_embeddings", 1, kMaxPositions);
  config.rms_norm_eps = fields.Number("rms_norm_eps", 0.0, 1.0);
  config.tie_word_embeddings =
      fields.BoolOr("tie_word_embeddings", top.BoolOr("tie_word_embeddings", false));
  config.dtype = ReadDType(fields);
  ReadAttention(fields, config);
  ReadExperts(fields, config);
  config.eos_ids = ReadTokenIds(fields, "eos_token_id");
  if (fields.Has("bos_token_id")) config.bos_id = fields.Int("bos_token_id", 0, kMaxTokenId);
  config.rope = ReadRopeConfig(fields, config.max_position_embeddings, reading.unsupported);
  CheckProducts(fields, config);
  CollectUnsupported(top, fields, config.num_layers, reading.unsupported);
  return reading;
}

ModelConfigReading InspectModelConfig(const std::string& folder) {
  if (FileExists(folder) && !IsDirectory(folder))
    Throw(ErrorKind::kInvalid,
          "{}: is a file; a model is given as the Hugging Face folder with config.json and "
          "safetensors",
          folder);
  if (!IsDirectory(folder)) Throw(ErrorKind::kNotFound, "{}: no such folder", folder);
  const std::string path = folder + "/config.json";
  return ParseModelConfig(ReadFile(path, kMaxSettingsBytes), path);
}

ModelConfig ReadModelConfig(const std::string& folder) {
  ModelConfigReading reading = InspectModelConfig(folder);
  if (reading.unsupported.empty()) return std::move(reading.config);
  std::string reasons;
  for (const std::string& reason : reading.unsupported)
    reasons += (reasons.empty() ? "" : "; ") + reason;
  Throw(ErrorKind::kUnsupported, "{} cannot be run: {}", reading.config.architecture, reasons);
}

}  // namespace wideload::checkpoint
