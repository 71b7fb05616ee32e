#include "checkpoint/weight_sums.h"

#include <algorithm>
#include <array>
#include <cctype>

namespace wideload::checkpoint {
namespace {

constexpr std::string_view kExperts = "experts";
constexpr std::string_view kEmbeddings = "embeddings";
constexpr std::string_view kExtraLayers = "extra prediction layers";
constexpr std::string_view kOther = "other";
// The order in which parts are shown.
constexpr std::array<std::string_view, 10> kPartOrder = {
    kEmbeddings, "attention", "router",  kExperts,     "shared experts",
    "dense MLP", "norms",     "lm_head", kExtraLayers, kOther};

struct Rule {
  std::string_view fragment;  // of the tensor's name
  std::string_view part;
};

// The first rule that matches decides.
constexpr std::array<Rule, 18> kRules = {{{"vision", kOther},
                                          {"mm_projector", kOther},
                                          {"multi_modal", kOther},
                                          {"lm_head", "lm_head"},
                                          {"embed_tokens", kEmbeddings},
                                          {".shared_expert", "shared experts"},
                                          {".mlp.router", "router"},
                                          {".experts.", kExperts},
                                          {".router.", "router"},
                                          {".mlp.gate.", "router"},
                                          {".block_sparse_moe.gate.", "router"},
                                          {".feed_forward.gate.", "router"},
                                          {".self_attn.", "attention"},
                                          {".attention.", "attention"},
                                          {"norm", "norms"},
                                          {".mlp.", "dense MLP"},
                                          {".feed_forward.", "dense MLP"},
                                          {"", kOther}}};

uint64_t ParametersOf(std::string_view name, const TensorView& view) {
  const auto count = static_cast<uint64_t>(view.shape().num_elements());
  if (name.ends_with("scale") || name.ends_with("scales") || name.ends_with("scale_inv")) return 0;
  if (name.ends_with("_packed") && view.dtype() == DType::kI32) return 8 * count;  // 4-bit
  if (name.ends_with("_blocks") && view.dtype() == DType::kU8) return 2 * count;   // 4-bit
  const bool is_integer = view.dtype() != DType::kF32 && view.dtype() != DType::kF64 &&
                          view.dtype() != DType::kBF16 && view.dtype() != DType::kF16 &&
                          view.dtype() != DType::kF8E4M3;
  return is_integer ? 0 : count;
}

void SumParts(const Checkpoint& checkpoint, int64_t num_layers, WeightSums& sums) {
  std::map<std::string_view, PartSum> parts;
  for (const std::string_view name : checkpoint.Names()) {
    const TensorView& view = checkpoint.Peek(name);
    PartSum& part = parts[PartOf(name, num_layers)];
    ++part.num_tensors;
    part.bytes += static_cast<uint64_t>(view.num_bytes());
    part.parameters += ParametersOf(name, view);
    sums.bytes_of_dtype[std::string(DTypeName(view.dtype()))] +=
        static_cast<uint64_t>(view.num_bytes());
  }
  for (const std::string_view part : kPartOrder) {
    if (!parts.contains(part)) continue;
    parts[part].name = part;
    sums.parameters += parts[part].parameters;
    sums.parts.push_back(parts[part]);
  }
}

void GroupShapes(const Checkpoint& checkpoint, WeightSums& sums) {
  std::map<std::string, ShapeGroup> groups;
  for (const std::string_view name : checkpoint.Names()) {
    const TensorView& view = checkpoint.Peek(name);
    const std::string pattern = NamePattern(name);
    const std::string key =
        fmt::format("{} {} {}", pattern, DTypeName(view.dtype()), view.shape().ToString());
    ShapeGroup& group = groups[key];
    group = {pattern, view.dtype(), view.shape(), group.count + 1};
  }
  for (auto& [key, group] : groups) sums.shapes.push_back(std::move(group));
}

uint64_t ActiveParameters(const WeightSums& sums, const ModelConfig* config) {
  uint64_t active = 0;
  const bool has_head = std::any_of(sums.parts.begin(), sums.parts.end(),
                                    [](const PartSum& part) { return part.name == "lm_head"; });
  for (const PartSum& part : sums.parts) {
    uint64_t parameters = part.parameters;
    if (part.name == kOther || part.name == kExtraLayers) parameters = 0;
    if (part.name == kEmbeddings && has_head) parameters = 0;  // one row of it
    if (part.name == kExperts && config != nullptr && config->num_experts > 0)
      parameters = parameters / static_cast<uint64_t>(config->num_experts) *
                   static_cast<uint64_t>(config->top_k);
    active += parameters;
  }
  return active;
}

}  // namespace

std::string NamePattern(std::string_view name) {
  std::string pattern;
  size_t begin = 0;
  while (begin <= name.size()) {
    const size_t end = std::min(name.find('.', begin), name.size());
    const std::string_view piece = name.substr(begin, end - begin);
    const bool is_number =
        !piece.empty() && std::all_of(piece.begin(), piece.end(),
                                      [](unsigned char c) { return std::isdigit(c) != 0; });
    if (begin > 0) pattern += '.';
    pattern += is_number ? std::string_view("*") : piece;
    begin = end + 1;
  }
  return pattern;
}

int64_t LayerOf(std::string_view name) {
  constexpr std::string_view kMark = "layers.";
  const size_t mark = name.find(kMark);
  if (mark == std::string_view::npos) return -1;
  int64_t layer = -1;
  for (size_t i = mark + kMark.size(); i < name.size() && layer < 1000000; ++i) {
    if (std::isdigit(static_cast<unsigned char>(name[i])) == 0) break;
    layer = std::max<int64_t>(layer, 0) * 10 + (name[i] - '0');
  }
  return layer;
}

std::string_view PartOf(std::string_view tensor_name, int64_t num_layers) {
  if (num_layers > 0 && LayerOf(tensor_name) >= num_layers &&
      tensor_name.find("vision") == std::string_view::npos)
    return kExtraLayers;
  for (const Rule& rule : kRules)
    if (tensor_name.find(rule.fragment) != std::string_view::npos) return rule.part;
  return kOther;
}

WeightSums SumWeights(const Checkpoint& checkpoint, const ModelConfig* config) {
  WeightSums sums{.num_files = checkpoint.num_files(), .total_bytes = checkpoint.TotalBytes()};
  SumParts(checkpoint, config != nullptr ? config->num_layers : 0, sums);
  GroupShapes(checkpoint, sums);
  sums.active_parameters = ActiveParameters(sums, config);
  return sums;
}

}  // namespace wideload::checkpoint
