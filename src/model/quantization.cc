// What quantization_config may say of weights that the loader can read. Which tensors are quantised
// is taken from the checkpoint itself: lists of exceptions say nothing more, but must be lists.
// Source: the published configs of DeepSeek-V3, Kimi K2 and GPT-OSS; the format of
// compressed-tensors.
#include <algorithm>
#include <initializer_list>

#include "base/error.h"
#include "model/family.h"

namespace wideload::model {

using checkpoint::ConfigReader;

namespace {

std::string Found(const JsonFields& fields, std::string_view name) {
  const Json* value = fields.Find(name);
  return value == nullptr ? "missing" : DumpJson(*value).substr(0, 60);
}

void Refuse(const JsonFields& fields, std::string_view name, std::string_view implemented,
            ConfigReader& reader) {
  reader.Unsupported(fmt::format("{} is {}; implemented is {}", fields.Where(name),
                                 Found(fields, name), implemented));
}

// The field, or when it is absent `fallback`, must be one of `allowed`.
void Expect(const JsonFields& fields, std::string_view name, const Json& fallback,
            std::initializer_list<Json> allowed, ConfigReader& reader) {
  const Json* found = fields.Find(name);
  const Json& value = found == nullptr ? fallback : *found;
  if (std::ranges::find(allowed, value) != allowed.end()) return;
  std::string names;
  for (const Json& one : allowed)
    if (!one.is_null()) names += (names.empty() ? "" : " or ") + DumpJson(one);
  Refuse(fields, name, names.empty() ? "null" : names, reader);
}

void ExpectNames(const JsonFields& fields, std::string_view name) {
  const Json* list = fields.Find(name);
  if (list == nullptr) return;
  if (!list->is_array() || !std::ranges::all_of(*list, [](const Json& v) { return v.is_string(); }))
    fields.Refuse(name, "an array of names");
}

// A key that nobody knows may change what the weights are.
void RefuseUnknown(const JsonFields& fields, std::initializer_list<std::string_view> known,
                   ConfigReader& reader) {
  for (const auto& [name, value] : fields.json().items()) {
    const bool is_known = std::ranges::find(known, std::string_view(name)) != known.end();
    if (!is_known && !value.is_null())
      reader.Unsupported(fmt::format("{} is {}; this key is not known", fields.Where(name),
                                     DumpJson(value).substr(0, 60)));
  }
}

void CheckFp8(const JsonFields& fields, ConfigReader& reader) {
  Expect(fields, "fmt", "e4m3", {"e4m3"}, reader);
  Expect(fields, "weight_block_size", nullptr, {Json({128, 128})}, reader);
  // Activations stay unquantised, which is more exact; a static scheme has scales for them.
  Expect(fields, "activation_scheme", "dynamic", {"dynamic"}, reader);
  Expect(fields, "scale_fmt", nullptr, {nullptr, "ue8m0", "float"}, reader);
  fields.BoolOr("dequantize", false);
  ExpectNames(fields, "modules_to_not_convert");
  ExpectNames(fields, "ignored_layers");
  RefuseUnknown(fields,
                {"quant_method", "fmt", "weight_block_size", "activation_scheme", "scale_fmt",
                 "dequantize", "modules_to_not_convert", "ignored_layers"},
                reader);
}

// What one group of layers is quantised to must be int4 with a scale for 32.
void CheckInt4(const JsonFields& weights, ConfigReader& reader) {
  Expect(weights, "num_bits", nullptr, {4}, reader);
  Expect(weights, "type", nullptr, {"int"}, reader);
  Expect(weights, "symmetric", nullptr, {true}, reader);
  Expect(weights, "strategy", nullptr, {"group"}, reader);
  Expect(weights, "group_size", nullptr, {32}, reader);
  Expect(weights, "dynamic", false, {false}, reader);
  Expect(weights, "block_structure", nullptr, {nullptr}, reader);
  // "weight" and "static" order the search for scales only; "group" permutes what is stored.
  Expect(weights, "actorder", nullptr, {nullptr, false, "weight", "static"}, reader);
  // How scales were found, and types that the tensors say themselves.
  RefuseUnknown(
      weights,
      {"num_bits", "type", "symmetric", "strategy", "group_size", "dynamic", "block_structure",
       "actorder", "observer", "observer_kwargs", "scale_dtype", "zp_dtype"},
      reader);
}

void CheckGroup(const JsonFields& group, ConfigReader& reader) {
  CheckInt4(group.Object("weights"), reader);
  Expect(group, "format", nullptr, {nullptr, "pack-quantized"}, reader);
  Expect(group, "input_activations", nullptr, {nullptr}, reader);
  Expect(group, "output_activations", nullptr, {nullptr}, reader);
  ExpectNames(group, "targets");
  const Json* targets = group.Find("targets");
  if (targets == nullptr || targets->empty()) group.Refuse("targets", "an array of names");
  RefuseUnknown(group, {"weights", "format", "input_activations", "output_activations", "targets"},
                reader);
}

// An object that says that nothing is done, or null.
void ExpectNothing(const JsonFields& fields, std::string_view name, ConfigReader& reader) {
  const Json* value = fields.Find(name);
  if (value == nullptr) return;
  const bool is_dense =
      value->is_object() && value->contains("format") && (*value)["format"] == "dense";
  if (!is_dense && !(value->is_object() && value->empty())) Refuse(fields, name, "null", reader);
}

void CheckCompressedTensors(const JsonFields& fields, ConfigReader& reader) {
  Expect(fields, "format", nullptr, {"pack-quantized"}, reader);
  Expect(fields, "quantization_status", "compressed", {"compressed", "frozen"}, reader);
  Expect(fields, "kv_cache_scheme", nullptr, {nullptr}, reader);
  ExpectNothing(fields, "sparsity_config", reader);
  ExpectNothing(fields, "transform_config", reader);
  ExpectNames(fields, "ignore");
  RefuseUnknown(fields,
                {"quant_method", "format", "config_groups", "ignore", "kv_cache_scheme",
                 "quantization_status", "global_compression_ratio", "sparsity_config",
                 "transform_config", "version"},
                reader);
  const JsonFields groups = fields.Object("config_groups");
  if (groups.json().empty()) fields.Refuse("config_groups", "an object with at least one group");
  for (const auto& [name, group] : groups.json().items()) CheckGroup(groups.Object(name), reader);
}

void CheckMxfp4(const JsonFields& fields, ConfigReader& reader) {
  ExpectNames(fields, "modules_to_not_convert");
  fields.BoolOr("dequantize", false);
  RefuseUnknown(fields, {"quant_method", "modules_to_not_convert", "dequantize"}, reader);
}

void CheckMethod(const JsonFields& fields, ConfigReader& reader) {
  constexpr std::string_view kImplemented =
      "fp8 in blocks, compressed-tensors (pack-quantized) and mxfp4";
  const std::string method = fields.Has("quant_method") ? fields.String("quant_method") : "";
  if (method == "fp8") {
    CheckFp8(fields, reader);
  } else if (method == "compressed-tensors") {
    CheckCompressedTensors(fields, reader);
  } else if (method == "mxfp4") {
    CheckMxfp4(fields, reader);
  } else {
    reader.Unsupported(fmt::format("{} is {}; implemented are {}", fields.Where("quant_method"),
                                   Found(fields, "quant_method"), kImplemented));
  }
}

}  // namespace

void ReadQuantization(ConfigReader& reader) {
  for (const JsonFields& fields : {reader.document(), reader.fields()}) {
    // The older name of the same.
    if (fields.Has("compression_config"))
      reader.Unsupported(fmt::format("{} is given; implemented is quantization_config",
                                     fields.Where("compression_config")));
    if (fields.Has("quantization_config"))
      CheckMethod(fields.Object("quantization_config"), reader);
    if (!reader.is_nested()) return;
  }
}

}  // namespace wideload::model
