// GPT-OSS: attention sinks, windows in every other layer, biases everywhere, a clamped SwiGLU whose
// gate and up rows take turns; bf16 or MXFP4. Source: the published config and modeling files.
#include "model/family.h"

namespace wideload::model {

ModelSpec ReadGptOss(checkpoint::ConfigReader& reader, checkpoint::ModelConfig& config) {
  RequireExperts(reader, config);
  ModelSpec spec = PlainSpec(config);
  const bool has_bias = reader.BoolOr("attention_bias", true);
  ForEachGqa(spec, [&](GqaSpec& attention) {
    attention.qkv_bias = attention.o_bias = has_bias;
    attention.has_sinks = true;
  });
  ReadWindows(reader, spec);
  spec.moe.router.normalize = true;
  spec.moe.activation = {
      .alpha = static_cast<float>(reader.NumberOr("swiglu_alpha", 1.702, 0.0, 1e3)),
      .limit = static_cast<float>(reader.NumberOr("swiglu_limit", 7.0, 0.0, 1e6)),
      .up_offset = 1};
  spec.experts.has_bias = true;
  spec.experts.has_router_bias = true;
  spec.expert_storage = ExpertStorage::kInputMajorInterleaved;
  spec.names.router = "mlp.router";
  return spec;
}

}  // namespace wideload::model
