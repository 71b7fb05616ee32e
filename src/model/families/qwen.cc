// Qwen2-MoE, Qwen3 and Qwen3-MoE. Source: their published config and modeling files.
#include "model/family.h"

namespace wideload::model {

using checkpoint::ConfigReader;
using checkpoint::ModelConfig;

namespace {

// Heads normed one by one before the rotation.
ModelSpec ReadQwen3Layers(ConfigReader& reader, const ModelConfig& config) {
  ModelSpec spec = PlainSpec(config);
  const bool has_bias = reader.BoolOr("attention_bias", false);
  ForEachGqa(spec, [&](GqaSpec& attention) {
    attention.qk_norm = QkNorm::kPerHead;
    attention.qkv_bias = attention.o_bias = has_bias;
  });
  ReadWindows(reader, spec);
  return spec;
}

}  // namespace

ModelSpec ReadQwen3(ConfigReader& reader, ModelConfig& config) {
  return ReadQwen3Layers(reader, config);
}

ModelSpec ReadQwen3Moe(ConfigReader& reader, ModelConfig& config) {
  RequireExperts(reader, config);
  ModelSpec spec = ReadQwen3Layers(reader, config);
  spec.moe.router.normalize = reader.BoolOr("norm_topk_prob", false);
  return spec;
}

// Biases of q, k and v; a shared expert behind a sigmoid gate.
ModelSpec ReadQwen2Moe(ConfigReader& reader, ModelConfig& config) {
  RequireExperts(reader, config);
  ModelSpec spec = PlainSpec(config);
  const bool has_bias = reader.BoolOr("qkv_bias", true);
  ForEachGqa(spec, [&](GqaSpec& attention) { attention.qkv_bias = has_bias; });
  ReadWindows(reader, spec);
  spec.moe.router.normalize = reader.BoolOr("norm_topk_prob", false);
  spec.experts.shared_width = reader.Int("shared_expert_intermediate_size", 1, int64_t{1} << 20);
  spec.experts.has_shared_gate = true;
  spec.names.shared = "mlp.shared_expert.";
  return spec;
}

}  // namespace wideload::model
