// DeepSeek-V2, V3 and R1, and Kimi K2, which is a V3 with other sizes: latent attention, leading
// dense layers, shared experts. Source: DeepSeek-V2 (arXiv 2405.04434), DeepSeek-V3 (arXiv
// 2412.19437) and the published config and modeling files.
#include <cmath>

#include "checkpoint/rope_table.h"
#include "model/family.h"

namespace wideload::model {

using checkpoint::ConfigReader;
using checkpoint::ModelConfig;

namespace {

constexpr int64_t kMaxRank = int64_t{1} << 16;
constexpr int64_t kMaxHeadDim = 1024;

MlaSpec ReadMla(ConfigReader& reader, const ModelConfig& config) {
  MlaSpec mla{.heads = config.num_attention_heads,
              .q_lora_rank = reader.IntOr("q_lora_rank", 0, 1, kMaxRank),
              .kv_lora_rank = reader.Int("kv_lora_rank", 1, kMaxRank),
              .nope_dim = reader.Int("qk_nope_head_dim", 1, kMaxHeadDim),
              .rope_dim = reader.Int("qk_rope_head_dim", 2, kMaxHeadDim),
              .value_dim = reader.Int("v_head_dim", 1, kMaxHeadDim)};
  if (mla.rope_dim % 2 != 0) reader.fields().Refuse("qk_rope_head_dim", "even");
  reader.Expect("rope_interleave", true, true);
  reader.Expect("attention_bias", false, false);
  if (mla.latent_dim() > kMaxHeadDim)
    reader.Unsupported(fmt::format(
        "{} is {}; with qk_rope_head_dim {} a cached row may have {} "
        "elements at most",
        reader.fields().Where("kv_lora_rank"), mla.kv_lora_rank, mla.rope_dim, kMaxHeadDim));
  mla.scale = YarnScoreFactor(config.rope) / std::sqrt(static_cast<float>(mla.query_dim()));
  return mla;
}

ModelSpec ReadLayers(ConfigReader& reader, ModelConfig& config) {
  RequireExperts(reader, config);
  const MlaSpec mla = ReadMla(reader, config);
  config.head_dim = mla.query_dim();
  ModelSpec spec = PlainSpec(config);
  spec.rotary_dim = mla.rope_dim;
  for (LayerSpec& layer : spec.layers) layer.attention = mla;
  ReadSharedExperts(reader, config, spec);
  return spec;
}

}  // namespace

ModelSpec ReadDeepseekV2(ConfigReader& reader, ModelConfig& config) {
  ModelSpec spec = ReadLayers(reader, config);
  reader.Expect("scoring_func", "softmax", "softmax");
  compute::RouterOptions& router = spec.moe.router;
  router.normalize = reader.BoolOr("norm_topk_prob", false);
  router.normalize_epsilon = 1e-20F;
  router.scale = static_cast<float>(reader.NumberOr("routed_scaling_factor", 1.0, 0.0, 1e6));
  const std::string method = reader.StringOr("topk_method", "greedy");
  if (method == "group_limited_greedy") {
    ReadExpertGroups(reader, spec);
    router.group_score = compute::GroupScore::kLargest;
  } else if (method != "greedy") {
    reader.Unsupported(fmt::format("{} is \"{}\"; implemented are greedy and group_limited_greedy",
                                   reader.fields().Where("topk_method"), method));
  } else {
    reader.Has("n_group");  // greedy looks at no groups
    reader.Has("topk_group");
  }
  return spec;
}

ModelSpec ReadDeepseekV3(ConfigReader& reader, ModelConfig& config) {
  ModelSpec spec = ReadLayers(reader, config);
  ReadSigmoidRouter(reader, spec);
  // Kimi K2.5 wraps the language model together with one for pictures.
  if (reader.is_nested()) {
    spec.names.prefix = "language_model.";
    spec.names.others = {"vision_tower.", "mm_projector.", "multi_modal_projector."};
  }
  return spec;
}

}  // namespace wideload::model
