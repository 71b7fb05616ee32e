#include "checkpoint/expert_bytes.h"

#include <algorithm>
#include <cctype>

#include "base/json.h"

namespace wideload::checkpoint {
namespace {

constexpr int64_t kMaxGroup = 1 << 20;

struct Bits {
  double per_weight = 0;  // scales included
  std::string storage;
};
using MaybeBits = std::optional<Bits>;

std::string Lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

Bits Grouped(std::string_view name, double bits, double scale_bits, int64_t group) {
  if (group <= 0) return {bits, fmt::format("{}, a scale per row", name)};
  return {bits + scale_bits / static_cast<double>(group),
          fmt::format("{}, a scale per {} weights", name, group)};
}

// DeepSeek's blocks, or a scale per tensor.
Bits Fp8(const JsonFields& quantization) {
  constexpr double kScaleBits = 32;
  const Json* block = quantization.Find("weight_block_size");
  if (block == nullptr || !block->is_array() || block->size() != 2 ||
      !(*block)[0].is_number_integer() || !(*block)[1].is_number_integer())
    return {8, "fp8, a scale per tensor or row"};
  const double weights = (*block)[0].get<double>() * (*block)[1].get<double>();
  return {8 + (weights >= 1 ? kScaleBits / weights : 0),
          fmt::format("fp8, a scale per {} x {} weights", (*block)[0].get<int64_t>(),
                      (*block)[1].get<int64_t>())};
}

// ModelOpt names the algorithm.
MaybeBits ModelOpt(const JsonFields& quantization) {
  const std::string algorithm = Lower(quantization.StringOr("quant_algo", ""));
  const auto group = [&](int64_t fallback) {
    return quantization.IntOr("group_size", fallback, 0, kMaxGroup);
  };
  if (algorithm == "nvfp4" || algorithm == "nvfp4_awq" || algorithm == "w4a8_nvfp4_fp8")
    return Grouped("nvfp4", 4, 8, group(16));
  if (algorithm == "fp8" || algorithm == "fp8_per_channel_per_token") return Bits{8, "fp8"};
  if (algorithm == "fp8_pb_wo" || algorithm == "fp8_block_scales")
    return Bits{8 + 32.0 / (128 * 128), "fp8, a scale per 128 x 128 weights"};
  if (algorithm == "mxfp4" || algorithm == "w4a8_mxfp4_fp8" || algorithm == "w4a16_mxfp4")
    return Grouped("mxfp4", 4, 8, group(32));
  if (algorithm == "mxfp8") return Grouped("mxfp8", 8, 8, group(32));
  if (algorithm == "w4a16_awq" || algorithm == "w4a8_awq")
    return Grouped("int4", 4, 16, group(128));
  if (algorithm == "int8_sq" || algorithm == "w8a16") return Bits{8, "int8"};
  return std::nullopt;
}

// The weights of one group of compressed-tensors.
MaybeBits CompressedGroup(const JsonFields& weights) {
  const int64_t bits = weights.IntOr("num_bits", 0, 0, 64);
  const std::string type = weights.StringOr("type", "");
  const std::string strategy = weights.StringOr("strategy", "");
  const int64_t group = weights.IntOr("group_size", 0, -1, kMaxGroup);
  if (type == "float" && bits == 8) {
    if (strategy == "block") return Bits{8 + 32.0 / (128 * 128), "fp8, a scale per block"};
    return group > 0 ? Grouped("fp8", 8, 8, group) : Bits{8, "fp8, a scale per tensor or row"};
  }
  // Groups of 16 have scales in fp8 (nvfp4), those of 32 exponents (mxfp4).
  if (type == "float" && bits == 4 && group > 0)
    return Grouped(group == 16 ? "nvfp4" : "mxfp4", 4, 8, group);
  if (type == "int" && (bits == 4 || bits == 8))
    return Grouped(fmt::format("int{}", bits), static_cast<double>(bits), 16, group);
  return std::nullopt;
}

// Groups that store weights in one way; which of several is the experts' is not known here.
MaybeBits CompressedTensors(const JsonFields& quantization) {
  if (!quantization.Has("config_groups")) return std::nullopt;
  const JsonFields groups = quantization.Object("config_groups");
  MaybeBits found;
  for (const auto& [name, value] : groups.json().items()) {
    if (!value.is_object()) return std::nullopt;
    const JsonFields group = groups.Object(name);
    if (!group.Has("weights")) return std::nullopt;
    const MaybeBits bits = CompressedGroup(group.Object("weights"));
    if (!bits || (found && found->per_weight != bits->per_weight)) return std::nullopt;
    found = bits;
  }
  return found;
}

MaybeBits ByMethod(const JsonFields& quantization, const std::string& method) {
  if (method == "fp8" || method == "fbgemm_fp8") return Fp8(quantization);
  if (method == "mxfp4") return Grouped("mxfp4", 4, 8, 32);
  if (method == "modelopt" || method == "modelopt_fp4" || method == "nvfp4")
    return ModelOpt(quantization);
  if (method == "compressed-tensors") return CompressedTensors(quantization);
  if (method == "gptq" || method == "awq" || method == "auto-round" || method == "gptq_marlin" ||
      method == "awq_marlin") {
    const int64_t bits = quantization.IntOr("bits", 0, 0, 64);
    if (bits != 2 && bits != 3 && bits != 4 && bits != 8) return std::nullopt;
    const int64_t group = quantization.IntOr("group_size", 128, -1, kMaxGroup);
    // a scale of 16 bits and a zero point of as many bits as a weight
    return Grouped(fmt::format("int{}", bits), static_cast<double>(bits),
                   16 + static_cast<double>(bits), group);
  }
  return std::nullopt;
}

// Modules left as they are; a pattern that may mean routed experts leaves their storage open.
bool SparesExperts(const JsonFields& quantization) {
  for (const char* name :
       {"ignore", "exclude_modules", "modules_to_not_convert", "ignored_layers"}) {
    const Json* list = quantization.Find(name);
    if (list == nullptr || !list->is_array()) continue;
    for (const Json& entry : *list) {
      if (!entry.is_string()) continue;
      const std::string pattern = entry.get<std::string>();
      const size_t at = pattern.find("experts");
      const bool is_shared =
          at != std::string::npos && at >= 7 && pattern.substr(at - 7, 7) == "shared_";
      if (at != std::string::npos && !is_shared) return true;
    }
  }
  return false;
}

}  // namespace

StoredExpert StoredExpertOf(const JsonFields& fields, uint64_t weights, DType plain) {
  if (!fields.Has("quantization_config"))
    return {weights * static_cast<uint64_t>(DTypeBytes(plain)), std::string(DTypeName(plain))};
  const JsonFields quantization = fields.Object("quantization_config");
  std::string method = Lower(quantization.StringOr("quant_method", ""));
  if (method.empty() && quantization.Has("quant_algo")) method = "modelopt";
  const MaybeBits bits =
      SparesExperts(quantization) ? std::nullopt : ByMethod(quantization, method);
  if (!bits) return {std::nullopt, fmt::format("unknown (quant_method \"{}\")", method)};
  return {static_cast<uint64_t>(static_cast<double>(weights) * bits->per_weight / 8),
          bits->storage};
}

}  // namespace wideload::checkpoint
