#include "model/family.h"

#include <algorithm>
#include <array>

#include "base/error.h"

namespace wideload::model {

using checkpoint::ConfigReader;
using checkpoint::ModelConfig;

namespace {

constexpr int64_t kMaxWindow = int64_t{1} << 27;
constexpr int64_t kMaxLayers = 4096;

}  // namespace

void RequireExperts(const ConfigReader& reader, const ModelConfig& config) {
  const bool is_read = !reader.IsFaulty({"num_experts", "num_local_experts", "n_routed_experts"});
  if (config.num_experts == 0 && is_read)
    reader.fields().Refuse("num_experts",
                           "present (num_local_experts and n_routed_experts mean the same)");
}

void RequireDenseWidth(const ConfigReader& reader, const ModelConfig& config) {
  if (config.NumMoeLayers() < config.num_layers && config.intermediate_size == 0 &&
      !reader.IsFaulty({"intermediate_size"}))
    reader.fields().Refuse("intermediate_size", "the width of a dense layer's MLP");
}

void RequireHeads(ConfigReader& reader, const ModelConfig& config) {
  constexpr int64_t kMaxHeadDim = 1024;
  if (!reader.Has("head_dim") && config.hidden_size % config.num_attention_heads != 0)
    reader.fields().Refuse("head_dim",
                           fmt::format("given, because hidden_size {} is no multiple of "
                                       "num_attention_heads {}",
                                       config.hidden_size, config.num_attention_heads));
  const double rotary_dim = static_cast<double>(config.head_dim) * config.rope.rotary_fraction;
  if (config.rope.rotary_fraction < 1.0 && static_cast<int64_t>(rotary_dim) % 2 != 0)
    Throw(ErrorKind::kInvalid, "{} is {}; it must leave an even part of head_dim, {}",
          reader.fields().Where("partial_rotary_factor"), config.rope.rotary_fraction,
          config.head_dim);
  if (config.head_dim % 2 != 0 || config.head_dim > kMaxHeadDim)
    Throw(ErrorKind::kInvalid, "{} is {}; it must be even and at most {}",
          reader.fields().Where("head_dim"), config.head_dim, kMaxHeadDim);
}

std::vector<std::string> ReadLayerTypes(ConfigReader& reader, int64_t num_layers,
                                        std::initializer_list<std::string_view> known) {
  const Json* types = reader.Find("layer_types");
  std::vector<std::string> names;
  if (types == nullptr || reader.IsFaulty({"num_hidden_layers"})) return names;
  if (!types->is_array() || types->size() != static_cast<size_t>(num_layers))
    reader.fields().Refuse("layer_types", fmt::format("an array of {} names", num_layers));
  std::string unknown;
  for (const Json& type : *types) {
    if (!type.is_string()) reader.fields().Refuse("layer_types", "an array of names");
    names.push_back(type.get<std::string>());
    if (std::ranges::find(known, names.back()) == known.end()) unknown = names.back();
  }
  if (!unknown.empty())
    reader.Unsupported(fmt::format("{} holds \"{}\"; implemented are {}",
                                   reader.fields().Where("layer_types"), unknown,
                                   fmt::join(known, " and ")));
  return names;
}

void ReadWindows(ConfigReader& reader, ModelSpec& spec) {
  const int64_t num_layers = spec.num_layers();
  const std::vector<std::string> types =
      ReadLayerTypes(reader, num_layers, {"full_attention", "sliding_attention"});
  const int64_t window = reader.IntOr("sliding_window", 0, 0, kMaxWindow);
  const bool is_switched = reader.Has("use_sliding_window");
  const bool is_used = reader.BoolOr("use_sliding_window", window > 0);
  // Where there is a switch, the first layers are left out of it.
  const int64_t first = is_switched ? reader.IntOr("max_window_layers", 0, 0, kMaxLayers) : 0;
  if (!is_used) return;
  for (int64_t i = 0; i < num_layers; ++i) {
    const auto at = static_cast<size_t>(i);
    const bool is_windowed = types.empty() ? i >= first : types[at] == "sliding_attention";
    if (is_windowed) std::get<GqaSpec>(spec.layers[at].attention).window = window;
  }
}

void ReadExpertGroups(ConfigReader& reader, ModelSpec& spec) {
  compute::RouterOptions& router = spec.moe.router;
  if (spec.moe.num_experts == 0) return;
  router.num_groups = reader.IntOr("n_group", 1, 1, spec.moe.num_experts);
  if (reader.IsFaulty({"n_group"})) return;
  router.top_groups = reader.IntOr("topk_group", 1, 1, router.num_groups);
  if (spec.moe.num_experts % router.num_groups != 0)
    reader.fields().Refuse(
        "n_group", fmt::format("a divisor of the number of experts, {}", spec.moe.num_experts));
  const int64_t reachable = spec.moe.num_experts / router.num_groups * router.top_groups;
  if (router.top_k > reachable)
    reader.fields().Refuse("topk_group",
                           fmt::format("enough groups for num_experts_per_tok, {}", router.top_k));
}

void ReadSigmoidRouter(ConfigReader& reader, ModelSpec& spec) {
  reader.Expect("scoring_func", "sigmoid", "sigmoid");
  reader.Expect("topk_method", "noaux_tc", "noaux_tc");
  ReadExpertGroups(reader, spec);
  compute::RouterOptions& router = spec.moe.router;
  router.score = compute::RouterScore::kSigmoid;
  router.group_score = compute::GroupScore::kTwoLargest;
  router.normalize = reader.BoolOr("norm_topk_prob", true);
  router.normalize_epsilon = 1e-20F;
  router.scale = static_cast<float>(reader.NumberOr("routed_scaling_factor", 1.0, 0.0, 1e6));
  spec.experts.has_correction_bias = true;
}

void ReadSharedExperts(ConfigReader& reader, const ModelConfig& config, ModelSpec& spec) {
  const int64_t count = reader.IntOr("n_shared_experts", 0, 0, 1024);
  spec.experts.shared_width = count * config.moe_intermediate_size;
}

}  // namespace wideload::model
