#include "checkpoint/model_config.h"

#include <algorithm>

#include "base/file.h"
#include "checkpoint/config_reader.h"
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
constexpr double kMaxParameters = 281474976710656.0;                // 2^48
constexpr double kMaxKvBytesAtFullContext = 4611686018427387904.0;  // 2^62

// The integer under whichever of `names` is present; two that differ are refused.
std::optional<int64_t> EitherInt(ConfigReader& reader,
                                 std::initializer_list<std::string_view> names, int64_t max) {
  std::optional<int64_t> value;
  std::string_view found;
  for (const std::string_view name : names) {
    if (!reader.Has(name)) continue;
    const int64_t number = reader.Int(name, 0, max);
    if (value && *value != number)
      reader.fields().Refuse(name, fmt::format("equal to {}, which is {}", found, *value));
    value = number;
    found = name;
  }
  return value;
}

std::string ReadArchitecture(const JsonFields& document) {
  const Json& names = document.Required("architectures");
  if (!names.is_array() || names.size() != 1 || !names[0].is_string())
    document.Refuse("architectures", "an array of exactly one name");
  return names[0].get<std::string>();
}

// The spellings that torch and transformers take; "auto" says what the tensors say anyway.
DType ReadDType(const JsonFields& fields) {
  std::optional<DType> dtype;
  for (const std::string_view name : {"dtype", "torch_dtype"}) {
    if (!fields.Has(name)) continue;
    const std::string text = fields.String(name);
    if (text == "auto") continue;
    std::optional<DType> found;
    if (text == "bfloat16") found = DType::kBF16;
    if (text == "float16" || text == "half") found = DType::kF16;
    if (text == "float32" || text == "float") found = DType::kF32;
    if (!found) fields.Refuse(name, "auto, bfloat16, float16, half, float32 or float");
    if (dtype && *dtype != *found) fields.Refuse(name, "the same as dtype");
    dtype = found;
  }
  return dtype.value_or(DType::kF32);
}

void ReadAttention(ConfigReader& reader, ModelConfig& config) {
  config.num_attention_heads = reader.Int("num_attention_heads", 1, kMaxHeads);
  config.num_kv_heads =
      reader.IntOr("num_key_value_heads", config.num_attention_heads, 1, kMaxHeads);
  const bool has_heads = !reader.IsFaulty({"num_attention_heads", "num_key_value_heads"});
  if (has_heads && config.num_attention_heads % config.num_kv_heads != 0)
    reader.fields().Refuse(
        "num_key_value_heads",
        fmt::format("a divisor of num_attention_heads, {}", config.num_attention_heads));
  config.head_dim =
      reader.IntOr("head_dim", config.hidden_size / config.num_attention_heads, 1, kMaxHeadDim);
  if (config.head_dim > kMaxHeadDim)
    Throw(ErrorKind::kInvalid, "{} is {}; it must be at most {}", reader.fields().Where("head_dim"),
          config.head_dim, kMaxHeadDim);
}

// Layer numbers below `num_layers`, ascending and each once.
std::vector<int32_t> ReadLayers(ConfigReader& reader, std::string_view name, int64_t num_layers) {
  const Json* list = reader.Find(name);
  std::vector<int32_t> layers;
  if (list == nullptr || reader.IsFaulty({"num_hidden_layers"})) return layers;
  const std::string allowed = fmt::format("an array of layer numbers in [0, {}]", num_layers - 1);
  if (!list->is_array()) reader.fields().Refuse(name, allowed);
  for (const Json& item : *list) {
    if (!item.is_number_unsigned() || item.get<uint64_t>() >= static_cast<uint64_t>(num_layers))
      reader.fields().Refuse(name, allowed);
    layers.push_back(item.get<int32_t>());
  }
  std::sort(layers.begin(), layers.end());
  layers.erase(std::unique(layers.begin(), layers.end()), layers.end());
  return layers;
}

// Every family has its own way to say it: leading dense layers, a step between layers counted from
// either end, a list of the layers with experts or of those without.
std::vector<int32_t> ReadMoeLayers(ConfigReader& reader, int64_t num_layers) {
  const std::vector<int32_t> listed = ReadLayers(reader, "moe_layers", num_layers);
  const int64_t interleave = reader.IntOr("interleave_moe_layer_step", 1, 1, kMaxLayers);
  if (!listed.empty()) return listed;
  const std::vector<int32_t> dense = ReadLayers(reader, "mlp_only_layers", num_layers);
  const int64_t first = reader.IntOr("first_k_dense_replace", 0, 0, kMaxLayers);
  const int64_t step = reader.IntOr("decoder_sparse_step", interleave, 1, kMaxLayers);
  const int64_t freq = reader.IntOr("moe_layer_freq", 1, 1, kMaxLayers);
  std::vector<int32_t> layers;
  for (int64_t layer = first; layer < num_layers; ++layer) {
    const auto number = static_cast<int32_t>(layer);
    if ((layer + 1) % step == 0 && layer % freq == 0 &&
        !std::binary_search(dense.begin(), dense.end(), number))
      layers.push_back(number);
  }
  return layers;
}

void ReadExperts(ConfigReader& reader, ModelConfig& config) {
  const std::optional<int64_t> num_experts =
      EitherInt(reader, {"num_experts", "num_local_experts", "n_routed_experts"}, kMaxExperts);
  if (!num_experts && (reader.Has("num_experts_per_tok") || reader.Has("moe_intermediate_size")))
    reader.fields().Refuse("num_experts",
                           "present (num_local_experts and n_routed_experts mean the same)");
  config.intermediate_size = reader.IntOr("intermediate_size", 0, 1, kMaxIntermediate);
  config.num_experts = num_experts.value_or(0);
  if (config.num_experts == 0) return;
  config.top_k = reader.Int("num_experts_per_tok", 1, config.num_experts);
  // Families without dense layers call the width of an expert intermediate_size.
  config.moe_intermediate_size = reader.Int(
      reader.Has("moe_intermediate_size") ? "moe_intermediate_size" : "intermediate_size", 1,
      kMaxIntermediate);
  config.moe_layers = ReadMoeLayers(reader, config.num_layers);
}

std::string ReadQuantization(const ConfigReader& reader) {
  for (const JsonFields& fields : {reader.document(), reader.fields()})
    if (fields.Has("quantization_config"))
      return fields.Object("quantization_config").StringOr("quant_method", "unknown");
  return "";
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

ModelConfig ReadModelConfig(ConfigReader& reader) {
  const JsonFields document = reader.document();
  ModelConfig config;
  reader.Part([&] { config.architecture = ReadArchitecture(document); });
  reader.Part([&] { config.model_type = document.StringOr("model_type", ""); });
  config.vocab_size = reader.Int("vocab_size", 1, kMaxVocab);
  config.hidden_size = reader.Int("hidden_size", 1, kMaxHidden);
  config.num_layers = reader.Int("num_hidden_layers", 1, kMaxLayers);
  config.num_extra_layers = reader.IntOr("num_nextn_predict_layers", 0, 0, kMaxLayers);
  config.max_position_embeddings = reader.Int("max_position_embeddings", 1, kMaxPositions);
  config.rms_norm_eps = reader.Number("rms_norm_eps", 0.0, 1.0);
  reader.Part([&] {
    config.tie_word_embeddings =
        reader.BoolOr("tie_word_embeddings", document.BoolOr("tie_word_embeddings", false));
  });
  reader.Part([&] { config.dtype = ReadDType(reader.fields()); });
  reader.Part([&] { config.quantization = ReadQuantization(reader); });
  reader.Part([&] { ReadAttention(reader, config); });
  reader.Part([&] { ReadExperts(reader, config); });
  reader.Part([&] {
    config.eos_ids = ReadTokenIds(reader.fields(), "eos_token_id");
    if (config.eos_ids.empty()) config.eos_ids = ReadTokenIds(document, "eos_token_id");
  });
  if (reader.Has("bos_token_id")) config.bos_id = reader.Int("bos_token_id", 0, kMaxTokenId);
  reader.Part([&] { config.rope = ReadRopeConfig(reader, config.max_position_embeddings); });
  // max_position_embeddings may name the context before yarn or after it.
  if (config.rope.type == RopeType::kYarn)
    config.max_position_embeddings = std::max(
        config.max_position_embeddings,
        std::min(kMaxPositions,
                 static_cast<int64_t>(config.rope.factor *
                                      static_cast<double>(config.rope.original_max_positions))));
  if (reader.faults().empty()) reader.Part([&] { CheckProducts(reader.fields(), config); });
  return config;
}

ModelConfig ReadModelConfig(const std::string& folder) {
  std::string path;
  const std::string text = ReadConfigText(folder, path);
  ConfigReader reader(text, path);
  ModelConfig config = ReadModelConfig(reader);
  reader.ThrowFaults();
  return config;
}

std::string ReadConfigText(const std::string& folder, std::string& path) {
  if (FileExists(folder) && !IsDirectory(folder))
    Throw(ErrorKind::kInvalid,
          "{}: is a file; a model is given as the Hugging Face folder with config.json and "
          "safetensors",
          folder);
  if (!IsDirectory(folder)) Throw(ErrorKind::kNotFound, "{}: no such folder", folder);
  path = folder + "/config.json";
  return ReadFile(path, kMaxSettingsBytes);
}

}  // namespace wideload::checkpoint
