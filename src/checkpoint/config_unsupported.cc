#include "checkpoint/config_unsupported.h"

#include <array>
#include <string_view>

namespace wideload::checkpoint {
namespace {

// A key, what it switches on, and the JSON values (besides null) with which it changes nothing.
struct Key {
  std::string_view name;
  std::string_view what;
  std::string_view harmless;  // "," separated JSON texts; numbers are compared as numbers
};

constexpr std::array<Key, 30> kKeys = {{
    {"attention_bias", "biases in the attention projections", "false"},
    {"qkv_bias", "biases in the query, key and value projections", "false"},
    {"use_qkv_bias", "biases in the query, key and value projections", "false"},
    {"mlp_bias", "biases in the MLPs", "false"},
    {"use_bias", "biases", "false"},
    {"kv_lora_rank", "multi-head latent attention", "0"},
    {"n_shared_experts", "shared experts", "0"},
    {"num_shared_experts", "shared experts", "0"},
    {"shared_expert_intermediate_size", "a shared expert", "0"},
    {"first_k_dense_replace", "leading dense layers", "0"},
    {"moe_layer_freq", "experts in every n-th layer", "1"},
    {"interleave_moe_layer_step", "experts in every n-th layer", "1"},
    {"n_group", "routing within groups of experts", "0,1"},
    {"topk_group", "routing within groups of experts", "0,1"},
    {"scoring_func", "a router score other than softmax", "\"softmax\""},
    {"routed_scaling_factor", "scaled expert outputs", "1"},
    {"partial_rotary_factor", "rotary embedding of a part of each head", "1"},
    {"rope_interleave", "interleaved rotary pairs", "false"},
    {"no_rope_layers", "layers without rotary embedding", "[]"},
    {"attention_chunk_size", "chunked attention", "0"},
    {"attn_temperature_tuning", "attention temperature", "false,0"},
    {"clip_qkv", "clipped queries, keys and values", ""},
    {"swiglu_limit", "a clamped SwiGLU", ""},
    {"attn_logit_softcapping", "capped attention scores", ""},
    {"final_logit_softcapping", "capped logits", ""},
    {"logit_scale", "scaled logits", "1"},
    {"logits_scaling", "scaled logits", "1"},
    {"embedding_multiplier", "scaled embeddings", "1"},
    {"residual_multiplier", "scaled residuals", "1"},
    {"is_encoder_decoder", "an encoder", "false"},
}};

bool IsHarmless(const Json& value, std::string_view harmless) {
  const Json list = Json::parse("[" + std::string(harmless) + "]");
  for (const Json& item : list)
    if (value == item) return true;
  return false;
}

void CollectSlidingWindow(const JsonFields& fields, std::vector<std::string>& unsupported) {
  if (fields.Has("use_sliding_window")) {
    if (fields.BoolOr("use_sliding_window", false))
      unsupported.push_back(fmt::format("{} is true; sliding-window attention is not implemented",
                                        fields.Where("use_sliding_window")));
    return;
  }
  if (fields.IntOr("sliding_window", 0, 0, std::numeric_limits<int64_t>::max()) > 0)
    unsupported.push_back(fmt::format("{} is {}; sliding-window attention is not implemented",
                                      fields.Where("sliding_window"),
                                      DumpJson(fields.Required("sliding_window"))));
}

void CollectLayerTypes(const JsonFields& fields, int64_t num_layers,
                       std::vector<std::string>& unsupported) {
  const Json* types = fields.Find("layer_types");
  if (types == nullptr) return;
  if (!types->is_array() || types->size() != static_cast<size_t>(num_layers))
    fields.Refuse("layer_types", fmt::format("an array of {} names", num_layers));
  for (const Json& type : *types) {
    if (!type.is_string()) fields.Refuse("layer_types", "an array of names");
    if (type == "full_attention") continue;
    unsupported.push_back(fmt::format("{} holds {}; implemented is full_attention",
                                      fields.Where("layer_types"), DumpJson(type)));
    return;
  }
}

}  // namespace

void CollectUnsupported(const JsonFields& top, const JsonFields& fields, int64_t num_layers,
                        std::vector<std::string>& unsupported) {
  const JsonFields& quantised = top.Has("quantization_config") ? top : fields;
  if (quantised.Has("quantization_config"))
    unsupported.push_back(fmt::format(
        "{} ({}) is present; quantised weights are not implemented, give the bf16 checkpoint",
        quantised.Where("quantization_config"),
        quantised.Object("quantization_config").StringOr("quant_method", "no quant_method")));
  if (top.Has("text_config"))
    unsupported.push_back(
        fmt::format("{} is present; models of several modalities are not implemented",
                    top.Where("text_config")));
  const std::string act = fields.StringOr("hidden_act", "silu");
  if (act != "silu")
    unsupported.push_back(
        fmt::format("{} is \"{}\"; implemented is silu", fields.Where("hidden_act"), act));
  CollectSlidingWindow(fields, unsupported);
  CollectLayerTypes(fields, num_layers, unsupported);
  for (const Key& key : kKeys) {
    const Json* value = fields.Find(key.name);
    if (value == nullptr || IsHarmless(*value, key.harmless)) continue;
    unsupported.push_back(fmt::format("{} is {}; {} {} not implemented", fields.Where(key.name),
                                      DumpJson(*value).substr(0, 60), key.what,
                                      key.what.ends_with('s') ? "are" : "is"));
  }
  if (fields.Has("rope_parameters")) {
    const JsonFields rope = fields.Object("rope_parameters");
    const Json* partial = rope.Find("partial_rotary_factor");
    if (partial != nullptr && *partial != Json(1.0))
      unsupported.push_back(
          fmt::format("{} is {}; rotary embedding of a part of each head is not "
                      "implemented",
                      rope.Where("partial_rotary_factor"), DumpJson(*partial)));
  }
}

}  // namespace wideload::checkpoint
