#include "checkpoint/rope_config.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>

namespace wideload::checkpoint {
namespace {

constexpr double kMinTheta = 1.001;  // yarn divides by its logarithm
constexpr double kMaxTheta = 1e15;
constexpr double kMaxFactor = 1e6;
constexpr double kMaxMscale = 1e3;
constexpr double kMinRotaryFraction = 1e-3;

std::optional<double> OptionalNumber(const JsonFields& fields, std::string_view name, double min,
                                     double max) {
  if (!fields.Has(name)) return std::nullopt;
  return fields.Number(name, min, max);
}

// The type is spelled `rope_type`, in older files `type`, and missing for plain RoPE.
std::string ReadTypeName(const JsonFields& scaling) {
  const std::string older = scaling.StringOr("type", "default");
  const std::string type = scaling.StringOr("rope_type", older);
  if (scaling.Has("type") && type != older) scaling.Refuse("type", "the same as rope_type");
  return type;
}

void ReadYarn(const JsonFields& scaling, int64_t max_positions, RopeConfig& rope) {
  rope.original_max_positions =
      scaling.IntOr("original_max_position_embeddings", max_positions, 1, kMaxPositions);
  const double stretch =
      static_cast<double>(max_positions) / static_cast<double>(rope.original_max_positions);
  rope.factor = scaling.Has("factor") ? scaling.Number("factor", 1.0, kMaxFactor) : stretch;
  if (rope.factor < 1.0)
    scaling.Refuse("original_max_position_embeddings",
                   fmt::format("at most max_position_embeddings, {}", max_positions));
  rope.beta_fast = scaling.NumberOr("beta_fast", 32.0, 1e-3, 1e6);
  rope.beta_slow = scaling.NumberOr("beta_slow", 1.0, 1e-3, 1e6);
  if (rope.beta_slow > rope.beta_fast)
    scaling.Refuse("beta_slow", fmt::format("at most beta_fast, {}", rope.beta_fast));
  rope.attention_factor = OptionalNumber(scaling, "attention_factor", 1e-6, kMaxFactor);
  rope.mscale = OptionalNumber(scaling, "mscale", 0.0, kMaxMscale);
  rope.mscale_all_dim = OptionalNumber(scaling, "mscale_all_dim", 0.0, kMaxMscale);
  rope.truncate = scaling.BoolOr("truncate", true);
}

void ReadLlama3(const JsonFields& scaling, RopeConfig& rope) {
  rope.factor = scaling.Number("factor", 1.0, kMaxFactor);
  rope.original_max_positions = scaling.Int("original_max_position_embeddings", 1, kMaxPositions);
  rope.low_freq_factor = scaling.Number("low_freq_factor", 1e-3, kMaxFactor);
  rope.high_freq_factor = scaling.Number("high_freq_factor", 1e-3, kMaxFactor);
  if (rope.high_freq_factor < rope.low_freq_factor)
    scaling.Refuse("high_freq_factor",
                   fmt::format("at least low_freq_factor, {}", rope.low_freq_factor));
}

// What other types have besides is of no effect, as in transformers; what no type has may change
// the positions.
void RefuseUnknown(const JsonFields& scaling, ConfigReader& reader) {
  constexpr std::array<std::string_view, 16> kKnown = {
      "rope_type",        "type",
      "factor",           "original_max_position_embeddings",
      "beta_fast",        "beta_slow",
      "attention_factor", "mscale",
      "mscale_all_dim",   "truncate",
      "low_freq_factor",  "high_freq_factor",
      "rope_theta",       "partial_rotary_factor",
      "finetuned",        "max_position_embeddings"};
  for (const auto& [name, value] : scaling.json().items())
    if (!value.is_null() && std::ranges::find(kKnown, std::string_view(name)) == kKnown.end())
      reader.Unsupported(fmt::format("{} is {}; this key is not known", scaling.Where(name),
                                     DumpJson(value).substr(0, 60)));
}

// `scaling` without its base frequency.
RopeConfig ReadScaling(const JsonFields& scaling, int64_t max_positions, ConfigReader& reader) {
  RopeConfig rope;
  const std::string type = ReadTypeName(scaling);
  if (type == "linear") {
    rope.type = RopeType::kLinear;
    rope.factor = scaling.Number("factor", 1.0, kMaxFactor);
  } else if (type == "yarn") {
    rope.type = RopeType::kYarn;
    ReadYarn(scaling, max_positions, rope);
  } else if (type == "llama3") {
    rope.type = RopeType::kLlama3;
    ReadLlama3(scaling, rope);
  } else if (type != "default") {
    reader.Unsupported(fmt::format("{} is \"{}\"; implemented are default, linear, yarn and llama3",
                                   scaling.Where(scaling.Has("rope_type") ? "rope_type" : "type"),
                                   type));
    return rope;
  }
  RefuseUnknown(scaling, reader);
  return rope;
}

bool HasOneRopePerLayerType(const JsonFields& parameters) {
  for (const Json& value : parameters.json())
    if (value.is_object()) return true;
  return false;
}

// The value of `name` in either place; both must agree.
std::optional<double> ReadEither(ConfigReader& reader, const std::optional<JsonFields>& parameters,
                                 std::string_view name, double min, double max) {
  std::optional<double> value;
  if (reader.Has(name)) value = reader.Number(name, min, max);
  if (!parameters || !parameters->Has(name)) return value;
  const double newer = parameters->Number(name, min, max);
  if (value && *value != newer)
    reader.fields().Refuse(name, fmt::format("the same as rope_parameters.{}", name));
  return newer;
}

}  // namespace

std::string_view RopeTypeName(RopeType type) {
  switch (type) {
    case RopeType::kLinear:
      return "linear";
    case RopeType::kYarn:
      return "yarn";
    case RopeType::kLlama3:
      return "llama3";
    case RopeType::kDefault:
      break;
  }
  return "default";
}

RopeConfig ReadRopeConfig(ConfigReader& reader, int64_t max_positions) {
  const JsonFields fields = reader.fields();
  std::optional<JsonFields> parameters;
  if (fields.Has("rope_parameters")) parameters = fields.Object("rope_parameters");
  if (parameters && HasOneRopePerLayerType(*parameters)) {
    reader.Unsupported(fmt::format("{} holds one rotary embedding per layer type",
                                   fields.Where("rope_parameters")));
    return {};
  }
  std::optional<RopeConfig> older;
  if (fields.Has("rope_scaling"))
    older = ReadScaling(fields.Object("rope_scaling"), max_positions, reader);
  RopeConfig rope = older.value_or(RopeConfig{});
  if (parameters) rope = ReadScaling(*parameters, max_positions, reader);
  if (older && *older != rope)
    fields.Refuse("rope_scaling", "absent or the same as rope_parameters");
  const std::optional<double> theta =
      ReadEither(reader, parameters, "rope_theta", kMinTheta, kMaxTheta);
  if (!theta) (parameters ? *parameters : fields).Refuse("rope_theta", "a number above 1");
  rope.theta = *theta;
  rope.rotary_fraction =
      ReadEither(reader, parameters, "partial_rotary_factor", kMinRotaryFraction, 1.0)
          .value_or(1.0);
  return rope;
}

}  // namespace wideload::checkpoint
