#include "checkpoint/inspection.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "base/file.h"
#include "base/json.h"
#include "checkpoint/generation_config.h"

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
constexpr std::array<Rule, 16> kRules = {{{"vision", kOther},
                                          {"multi_modal", kOther},
                                          {"lm_head", "lm_head"},
                                          {"embed_tokens", kEmbeddings},
                                          {".shared_expert", "shared experts"},
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

std::string PatternOf(std::string_view name) {
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

void SumParts(const Checkpoint& checkpoint, int64_t num_layers, Inspection& inspection) {
  std::map<std::string_view, PartSum> sums;
  for (const std::string_view name : checkpoint.Names()) {
    const TensorView& view = checkpoint.Peek(name);
    PartSum& sum = sums[PartOf(name, num_layers)];
    ++sum.num_tensors;
    sum.bytes += static_cast<uint64_t>(view.num_bytes());
    sum.parameters += ParametersOf(name, view);
    inspection.bytes_of_dtype[std::string(DTypeName(view.dtype()))] +=
        static_cast<uint64_t>(view.num_bytes());
  }
  for (const std::string_view part : kPartOrder) {
    if (!sums.contains(part)) continue;
    sums[part].name = part;
    inspection.parameters += sums[part].parameters;
    inspection.parts.push_back(sums[part]);
  }
}

void GroupShapes(const Checkpoint& checkpoint, Inspection& inspection) {
  std::map<std::string, ShapeGroup> groups;
  for (const std::string_view name : checkpoint.Names()) {
    const TensorView& view = checkpoint.Peek(name);
    const std::string pattern = PatternOf(name);
    const std::string key =
        fmt::format("{} {} {}", pattern, DTypeName(view.dtype()), view.shape().ToString());
    ShapeGroup& group = groups[key];
    group = {pattern, view.dtype(), view.shape(), group.count + 1};
  }
  for (auto& [key, group] : groups) inspection.shapes.push_back(std::move(group));
}

uint64_t ActiveParameters(const Inspection& inspection) {
  uint64_t active = 0;
  const bool has_head = std::any_of(inspection.parts.begin(), inspection.parts.end(),
                                    [](const PartSum& part) { return part.name == "lm_head"; });
  for (const PartSum& part : inspection.parts) {
    uint64_t parameters = part.parameters;
    if (part.name == kOther || part.name == kExtraLayers) parameters = 0;
    if (part.name == kEmbeddings && has_head) parameters = 0;  // one row of it
    if (part.name == kExperts && inspection.config && inspection.config->num_experts > 0)
      parameters = parameters / static_cast<uint64_t>(inspection.config->num_experts) *
                   static_cast<uint64_t>(inspection.config->top_k);
    active += parameters;
  }
  return active;
}

std::string ArchitectureOf(const std::string& folder) {
  const std::string path = folder + "/config.json";
  const Json json = ReadJsonFile(path);
  const JsonFields fields(json, path);
  const Json& names = fields.Required("architectures");
  if (!names.is_array() || names.size() != 1 || !names[0].is_string())
    fields.Refuse("architectures", "an array of exactly one name");
  return names[0].get<std::string>();
}

void ReadConfig(const std::string& folder, bool is_supported, Inspection& inspection) {
  try {
    ModelConfigReading reading = InspectModelConfig(folder);
    inspection.config = std::move(reading.config);
    inspection.unsupported.insert(inspection.unsupported.end(), reading.unsupported.begin(),
                                  reading.unsupported.end());
  } catch (const Error& e) {
    // Of an architecture nobody here knows, any field may be missing or mean something else.
    if (is_supported) throw;
    inspection.unsupported.push_back(e.what());
  }
}

}  // namespace

std::optional<uint64_t> Inspection::KvBytesPerToken() const {
  if (!config || !unsupported.empty()) return std::nullopt;
  return static_cast<uint64_t>(config->num_layers * 2 * config->num_kv_heads * config->head_dim *
                               DTypeBytes(DType::kBF16));
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

Inspection InspectFolder(const std::string& folder,
                         std::span<const std::string_view> supported_architectures) {
  const Checkpoint checkpoint(folder);
  Inspection inspection;
  inspection.architecture = ArchitectureOf(folder);
  const bool is_supported =
      std::find(supported_architectures.begin(), supported_architectures.end(),
                inspection.architecture) != supported_architectures.end();
  if (!is_supported) {
    std::string allowed;
    for (const std::string_view name : supported_architectures)
      allowed += fmt::format("{}{}", allowed.empty() ? "" : ", ", name);
    inspection.unsupported.push_back(
        fmt::format("{}/config.json: architectures is [\"{}\"]; implemented: {}", folder,
                    inspection.architecture, allowed));
  }
  ReadConfig(folder, is_supported, inspection);
  inspection.eos_ids = ReadGenerationConfig(folder).eos_ids;
  if (inspection.eos_ids.empty() && inspection.config)
    inspection.eos_ids = inspection.config->eos_ids;
  inspection.num_files = checkpoint.num_files();
  inspection.total_bytes = checkpoint.TotalBytes();
  SumParts(checkpoint, inspection.config ? inspection.config->num_layers : 0, inspection);
  GroupShapes(checkpoint, inspection);
  inspection.active_parameters = ActiveParameters(inspection);
  return inspection;
}

}  // namespace wideload::checkpoint
