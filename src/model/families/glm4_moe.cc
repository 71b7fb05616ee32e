// GLM-4.5 and 4.6: half of each head is rotated, DeepSeek-V3's router and shared experts. Source:
// the published config and modeling files.
#include "model/family.h"

namespace wideload::model {

ModelSpec ReadGlm4Moe(checkpoint::ConfigReader& reader, checkpoint::ModelConfig& config) {
  RequireExperts(reader, config);
  ModelSpec spec = PlainSpec(config);
  const bool has_bias = reader.BoolOr("attention_bias", false);
  const bool has_norm = reader.BoolOr("use_qk_norm", false);
  ForEachGqa(spec, [&](GqaSpec& attention) {
    attention.qkv_bias = has_bias;
    attention.qk_norm = has_norm ? QkNorm::kPerHead : QkNorm::kNone;
  });
  ReadSigmoidRouter(reader, spec);
  ReadSharedExperts(reader, config, spec);
  return spec;
}

}  // namespace wideload::model
