// What a model family is to the rest of the program: how a config.json of it becomes a ModelSpec.
// And what families share in reading one. Used by one thread. Include only in .cc files.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/config_reader.h"
#include "model/spec.h"

namespace wideload::model {

struct Family {
  std::string_view architecture;  // config.json's architectures[0]
  std::string_view name;          // for people
  // `config` is what ReadModelConfig found; the family corrects it where its own keys say otherwise
  // and reads the others that it understands. What it cannot compute goes to reader.unsupported(),
  // what is missing or impossible to reader.faults(). Errors: likewise, kInvalid or kCorrupt.
  ModelSpec (*read)(checkpoint::ConfigReader& reader, checkpoint::ModelConfig& config);
};

// families/*.cc
ModelSpec ReadQwen2Moe(checkpoint::ConfigReader& reader, checkpoint::ModelConfig& config);
// Likewise, each of the family that it is named after; errors: kInvalid and kUnsupported naming the
// field.
ModelSpec ReadQwen3(checkpoint::ConfigReader& reader, checkpoint::ModelConfig& config);
ModelSpec ReadQwen3Moe(checkpoint::ConfigReader& reader, checkpoint::ModelConfig& config);
ModelSpec ReadMixtral(checkpoint::ConfigReader& reader, checkpoint::ModelConfig& config);
ModelSpec ReadOlmoe(checkpoint::ConfigReader& reader, checkpoint::ModelConfig& config);
ModelSpec ReadLlama(checkpoint::ConfigReader& reader, checkpoint::ModelConfig& config);
ModelSpec ReadGlm4Moe(checkpoint::ConfigReader& reader, checkpoint::ModelConfig& config);
ModelSpec ReadDeepseekV2(checkpoint::ConfigReader& reader, checkpoint::ModelConfig& config);
ModelSpec ReadDeepseekV3(checkpoint::ConfigReader& reader, checkpoint::ModelConfig& config);
ModelSpec ReadLlama4(checkpoint::ConfigReader& reader, checkpoint::ModelConfig& config);
ModelSpec ReadGptOss(checkpoint::ConfigReader& reader, checkpoint::ModelConfig& config);

// Errors: kCorrupt or kInvalid where a family with experts names none, a dense layer has no width,
// or a head no even size to rotate.
void RequireExperts(const checkpoint::ConfigReader& reader, const checkpoint::ModelConfig& config);
void RequireDenseWidth(const checkpoint::ConfigReader& reader,
                       const checkpoint::ModelConfig& config);
void RequireHeads(checkpoint::ConfigReader& reader, const checkpoint::ModelConfig& config);

// `layer_types`: one name a layer, or empty where there is none. Names that are not `known` are
// unsupported.
std::vector<std::string> ReadLayerTypes(checkpoint::ConfigReader& reader, int64_t num_layers,
                                        std::initializer_list<std::string_view> known);

// Windows of attention as layer_types, sliding_window, use_sliding_window and max_window_layers say
// them, into the layers' GqaSpec. Types other than full and sliding are unsupported.
void ReadWindows(checkpoint::ConfigReader& reader, ModelSpec& spec);

// The GqaSpec of every layer, to change alike.
template <class Change>
void ForEachGqa(ModelSpec& spec, const Change& change) {
  for (LayerSpec& layer : spec.layers) change(std::get<GqaSpec>(layer.attention));
}

// `n_group` and `topk_group`: experts in equal groups, of which only the best are looked at.
void ReadExpertGroups(checkpoint::ConfigReader& reader, ModelSpec& spec);

// DeepSeek-V3's router, which others have taken over: sigmoid scores, a bias for the choice,
// experts in groups, normed and scaled weights. Reads its keys.
void ReadSigmoidRouter(checkpoint::ConfigReader& reader, ModelSpec& spec);

// `n_shared_experts` as one shared MLP of their widths together.
void ReadSharedExperts(checkpoint::ConfigReader& reader, const checkpoint::ModelConfig& config,
                       ModelSpec& spec);

// Looks at quantization_config: what the loader can read of it passes, the rest is unsupported.
void ReadQuantization(checkpoint::ConfigReader& reader);

}  // namespace wideload::model
