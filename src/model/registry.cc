#include "model/registry.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/error.h"
#include "model/family.h"

namespace wideload::model {
namespace {

constexpr std::array<Family, 13> kFamilies = {{
    {"Qwen3MoeForCausalLM", "Qwen3-MoE", ReadQwen3Moe},
    {"Qwen3ForCausalLM", "Qwen3", ReadQwen3},
    {"Qwen2MoeForCausalLM", "Qwen2-MoE", ReadQwen2Moe},
    {"DeepseekV3ForCausalLM", "DeepSeek-V3", ReadDeepseekV3},
    {"DeepseekV2ForCausalLM", "DeepSeek-V2", ReadDeepseekV2},
    {"KimiK25ForConditionalGeneration", "Kimi K2.5", ReadDeepseekV3},
    {"Llama4ForConditionalGeneration", "Llama 4", ReadLlama4},
    {"Llama4ForCausalLM", "Llama 4", ReadLlama4},
    {"LlamaForCausalLM", "Llama", ReadLlama},
    {"GptOssForCausalLM", "GPT-OSS", ReadGptOss},
    {"Glm4MoeForCausalLM", "GLM-4.5", ReadGlm4Moe},
    {"MixtralForCausalLM", "Mixtral", ReadMixtral},
    {"OlmoeForCausalLM", "OLMoE", ReadOlmoe},
}};

void ReadAsFamily(const Family& family, checkpoint::ConfigReader& reader, ModelReading& reading) {
  RequireDenseWidth(reader, reading.config);
  reader.Expect("hidden_act", "silu", "silu");
  reading.spec = family.read(reader, reading.config);
  const bool has_gqa = std::ranges::any_of(reading.spec.layers, [](const LayerSpec& layer) {
    return std::holds_alternative<GqaSpec>(layer.attention);
  });
  if (has_gqa && reader.faults().empty()) RequireHeads(reader, reading.config);
}

ModelReading Read(checkpoint::ConfigReader& reader) {
  ModelReading reading;
  reading.config = checkpoint::ReadModelConfig(reader);
  const auto family =
      std::ranges::find(kFamilies, reading.config.architecture, &Family::architecture);
  reader.Part([&] { ReadQuantization(reader); });
  if (family != kFamilies.end()) {
    reading.family = family->name;
    reader.Part([&] { ReadAsFamily(*family, reader, reading); });
    if (reader.faults().empty()) reader.RefuseUnread();
  } else if (!reading.config.architecture.empty()) {
    std::vector<std::string_view> known;
    for (const Family& row : kFamilies) known.push_back(row.architecture);
    reader.Unsupported(fmt::format("{} is [\"{}\"]; implemented are {}",
                                   reader.document().Where("architectures"),
                                   reading.config.architecture, fmt::join(known, ", ")));
  }
  reading.unsupported = reader.unsupported();
  return reading;
}

}  // namespace

std::span<const Family> Families() { return kFamilies; }

ModelReading ParseModel(std::string_view text, const std::string& source,
                        std::vector<std::string>& faults) {
  checkpoint::ConfigReader reader(text, source);
  ModelReading reading = Read(reader);
  faults = reader.faults();
  return reading;
}

ModelReading ParseModel(std::string_view text, const std::string& source) {
  checkpoint::ConfigReader reader(text, source);
  ModelReading reading = Read(reader);
  reader.ThrowFaults();
  return reading;
}

ModelReading InspectModel(const std::string& folder) {
  std::string path;
  const std::string text = checkpoint::ReadConfigText(folder, path);
  return ParseModel(text, path);
}

ModelReading ReadModel(const std::string& folder) {
  ModelReading reading = InspectModel(folder);
  if (reading.unsupported.empty()) return reading;
  Throw(ErrorKind::kUnsupported, "{} cannot be run: {}", reading.config.architecture,
        fmt::join(reading.unsupported, "; "));
}

}  // namespace wideload::model
