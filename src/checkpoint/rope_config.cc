#include "checkpoint/rope_config.h"

namespace wideload::checkpoint {
namespace {

constexpr double kMinTheta = 1.001;  // yarn divides by its logarithm
constexpr double kMaxTheta = 1e15;
constexpr double kMaxFactor = 1e6;
constexpr double kMaxMscale = 1e3;
constexpr int64_t kMaxPositions = int64_t{1} << 27;

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

RopeConfig ReadScaling(const JsonFields& scaling, double theta, int64_t max_positions,
                       std::vector<std::string>& unsupported) {
  RopeConfig rope{.theta = theta};
  const std::string type = ReadTypeName(scaling);
  if (type == "linear") {
    rope.type = RopeType::kLinear;
    rope.factor = scaling.Number("factor", 1.0, kMaxFactor);
  } else if (type == "yarn") {
    rope.type = RopeType::kYarn;
    ReadYarn(scaling, max_positions, rope);
  } else if (type != "default") {
    unsupported.push_back(
        fmt::format("{} is \"{}\"; implemented are default, linear and yarn",
                    scaling.Where(scaling.Has("rope_type") ? "rope_type" : "type"), type));
  }
  return rope;
}

bool HasOneRopePerLayerType(const JsonFields& parameters) {
  for (const Json& value : parameters.json())
    if (value.is_object()) return true;
  return false;
}

}  // namespace

std::string_view RopeTypeName(RopeType type) {
  switch (type) {
    case RopeType::kLinear:
      return "linear";
    case RopeType::kYarn:
      return "yarn";
    case RopeType::kDefault:
      break;
  }
  return "default";
}

RopeConfig ReadRopeConfig(const JsonFields& fields, int64_t max_positions,
                          std::vector<std::string>& unsupported) {
  const std::optional<double> top_theta =
      OptionalNumber(fields, "rope_theta", kMinTheta, kMaxTheta);
  std::optional<RopeConfig> older;
  if (fields.Has("rope_scaling"))
    older = ReadScaling(fields.Object("rope_scaling"), top_theta.value_or(0.0), max_positions,
                        unsupported);
  if (!fields.Has("rope_parameters")) {
    const double theta = fields.Number("rope_theta", kMinTheta, kMaxTheta);
    return older.value_or(RopeConfig{.theta = theta});
  }
  const JsonFields parameters = fields.Object("rope_parameters");
  if (HasOneRopePerLayerType(parameters)) {
    unsupported.push_back(fmt::format("{} holds one rotary embedding per layer type",
                                      fields.Where("rope_parameters")));
    return {};
  }
  const double theta = parameters.Has("rope_theta") || !top_theta
                           ? parameters.Number("rope_theta", kMinTheta, kMaxTheta)
                           : *top_theta;
  if (top_theta && *top_theta != theta)
    fields.Refuse("rope_theta", "the same as rope_parameters.rope_theta");
  RopeConfig rope = ReadScaling(parameters, theta, max_positions, unsupported);
  if (older) {
    older->theta = theta;
    if (*older != rope) fields.Refuse("rope_scaling", "absent or the same as rope_parameters");
  }
  return rope;
}

}  // namespace wideload::checkpoint
