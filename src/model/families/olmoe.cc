// OLMoE: queries and keys are normed over all heads at once. Source: "OLMoE" (arXiv 2409.02060) and
// the published modeling file.
#include "model/family.h"

namespace wideload::model {

ModelSpec ReadOlmoe(checkpoint::ConfigReader& reader, checkpoint::ModelConfig& config) {
  RequireExperts(reader, config);
  ModelSpec spec = PlainSpec(config);
  const bool has_bias = reader.BoolOr("attention_bias", false);
  ForEachGqa(spec, [&](GqaSpec& attention) {
    attention.qk_norm = QkNorm::kWholeRow;
    attention.qkv_bias = attention.o_bias = has_bias;
  });
  spec.moe.router.normalize = reader.BoolOr("norm_topk_prob", false);
  return spec;
}

}  // namespace wideload::model
