#include "support/random_model.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <memory>
#include <random>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "model/registry.h"
#include "tensor/buffer.h"
#include "tensor/safetensors.h"

namespace wideload::testing_support {
namespace {

using model::ExpertStorage;
using model::GqaSpec;
using model::MlaSpec;
using model::ModelSpec;
using model::QkNorm;

// What the configs have in common.
constexpr const char* kCommon = R"({
  "vocab_size": 331, "hidden_size": 40, "num_hidden_layers": 3, "num_attention_heads": 4,
  "num_key_value_heads": 2, "head_dim": 24, "intermediate_size": 56, "moe_intermediate_size": 24,
  "num_experts_per_tok": 5, "tie_word_embeddings": false, "hidden_act": "silu",
  "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "max_position_embeddings": 512,
  "torch_dtype": "bfloat16", "eos_token_id": 0
})";

struct FamilyConfig {
  const char* name;
  const char* changes;  // to kCommon; null removes
};

constexpr FamilyConfig kQwen3Moe = {"qwen3_moe", R"({
  "architectures": ["Qwen3MoeForCausalLM"], "num_experts": 20, "norm_topk_prob": false,
  "mlp_only_layers": [1]})"};

constexpr FamilyConfig kLayoutModel = {"qwen3_moe", R"({
  "architectures": ["Qwen3MoeForCausalLM"], "num_experts": 16, "norm_topk_prob": true,
  "num_experts_per_tok": 4, "num_attention_heads": 8, "num_hidden_layers": 8, "head_dim": 16,
  "mlp_only_layers": [1, 5]})"};

constexpr std::array<FamilyConfig, 7> kFamilies = {{
    {"qwen2_moe", R"({"architectures": ["Qwen2MoeForCausalLM"], "num_experts": 20,
      "shared_expert_intermediate_size": 18})"},
    {"olmoe", R"({"architectures": ["OlmoeForCausalLM"], "num_experts": 20,
      "num_key_value_heads": 4})"},
    {"glm4_moe", R"({"architectures": ["Glm4MoeForCausalLM"], "n_routed_experts": 20,
      "attention_bias": true, "use_qk_norm": true, "partial_rotary_factor": 0.25,
      "first_k_dense_replace": 1, "n_shared_experts": 1, "norm_topk_prob": true,
      "routed_scaling_factor": 1.5})"},
    {"deepseek_v3", R"({"architectures": ["DeepseekV3ForCausalLM"], "n_routed_experts": 20,
      "num_key_value_heads": 4, "head_dim": null, "q_lora_rank": 22, "kv_lora_rank": 21,
      "qk_nope_head_dim": 11, "qk_rope_head_dim": 6, "v_head_dim": 13, "n_group": 4,
      "topk_group": 3, "first_k_dense_replace": 1, "n_shared_experts": 2,
      "norm_topk_prob": true, "routed_scaling_factor": 2.5, "rope_scaling": {"type": "yarn",
      "factor": 4.0, "original_max_position_embeddings": 128, "mscale": 1.0,
      "mscale_all_dim": 1.0}})"},
    {"llama4", R"({"architectures": ["Llama4ForCausalLM"], "num_local_experts": 20,
      "moe_intermediate_size": null, "intermediate_size": 24, "intermediate_size_mlp": 56,
      "num_experts_per_tok": 1, "interleave_moe_layer_step": 2, "num_hidden_layers": 4,
      "attention_chunk_size": 23, "attn_temperature_tuning": true, "floor_scale": 9})"},
    {"gpt_oss", R"({"architectures": ["GptOssForCausalLM"], "num_local_experts": 20,
      "moe_intermediate_size": null, "intermediate_size": 27, "sliding_window": 19,
      "attention_bias": true, "layer_types": ["sliding_attention", "full_attention",
      "sliding_attention"]})"},
    {"llama", R"({"architectures": ["LlamaForCausalLM"], "num_experts_per_tok": null,
      "moe_intermediate_size": null, "attention_bias": true, "mlp_bias": true})"},
}};

// Adds random tensors as a checkpoint of the spec's family names them.
class Builder {
 public:
  Builder(const ModelSpec& spec, uint64_t seed) : spec_(spec), random_(seed) {
    const std::string& prefix = spec.names.prefix;
    Add(prefix + "model.embed_tokens.weight", {spec.vocab_size, spec.hidden}, 1);
    Add(prefix + "lm_head.weight", {spec.vocab_size, spec.hidden}, 0.5F);
    Add(prefix + "model.norm.weight", {spec.hidden}, 0.1F, 1);
    for (int64_t layer = 0; layer < spec.num_layers(); ++layer)
      AddLayer(spec.layers[static_cast<size_t>(layer)], LayerPrefix(spec.names, layer));
  }
  void Write(const std::string& path) const { WriteSafetensors(path, tensors_); }

 private:
  // bf16 values of the given spread around `mean`.
  void Add(const std::string& name, const Shape& shape, float spread, float mean = 0) {
    Buffer& buffer = buffers_.emplace_back(DType::kBF16, shape);
    auto* values = reinterpret_cast<BF16*>(buffer.data());
    for (int64_t i = 0; i < shape.num_elements(); ++i) {
      const auto uniform = static_cast<float>(random_() >> 40) * 0x1.0p-24F;
      values[i] = ToBF16(mean + spread * (2 * uniform - 1));
    }
    tensors_.emplace_back(name, buffer.View(DType::kBF16, shape));
  }
  void AddLinear(const std::string& name, int64_t n, int64_t k, bool has_bias = false) {
    Add(name + ".weight", {n, k}, 0.4F);
    if (has_bias) Add(name + ".bias", {n}, 0.3F);
  }
  void AddMlp(const std::string& prefix, int64_t width, bool has_bias = false) {
    AddLinear(prefix + "gate_proj", width, spec_.hidden, has_bias);
    AddLinear(prefix + "up_proj", width, spec_.hidden, has_bias);
    AddLinear(prefix + "down_proj", spec_.hidden, width, has_bias);
  }

  void AddLayer(const model::LayerSpec& layer, const std::string& prefix) {
    Add(prefix + "input_layernorm.weight", {spec_.hidden}, 0.1F, 1);
    Add(prefix + "post_attention_layernorm.weight", {spec_.hidden}, 0.1F, 1);
    std::visit([&](const auto& attention) { AddAttention(attention, prefix + "self_attn."); },
               layer.attention);
    if (layer.moe_index >= 0) {
      AddExperts(prefix);
    } else {
      AddMlp(prefix + spec_.names.dense_mlp, layer.dense_width, layer.dense_bias);
    }
  }

  void AddAttention(const GqaSpec& gqa, const std::string& prefix) {
    const int64_t q_rows = gqa.q_heads * gqa.head_dim;
    const int64_t kv_rows = gqa.kv_heads * gqa.head_dim;
    AddLinear(prefix + "q_proj", q_rows, spec_.hidden, gqa.qkv_bias);
    AddLinear(prefix + "k_proj", kv_rows, spec_.hidden, gqa.qkv_bias);
    AddLinear(prefix + "v_proj", kv_rows, spec_.hidden, gqa.qkv_bias);
    AddLinear(prefix + "o_proj", spec_.hidden, q_rows, gqa.o_bias);
    if (gqa.has_sinks) Add(prefix + "sinks", {gqa.q_heads}, 1);
    if (gqa.qk_norm != QkNorm::kPerHead && gqa.qk_norm != QkNorm::kWholeRow) return;
    const bool is_whole = gqa.qk_norm == QkNorm::kWholeRow;
    Add(prefix + "q_norm.weight", {is_whole ? q_rows : gqa.head_dim}, 0.2F, 1);
    Add(prefix + "k_norm.weight", {is_whole ? kv_rows : gqa.head_dim}, 0.2F, 1);
  }

  void AddAttention(const MlaSpec& mla, const std::string& prefix) {
    AddLinear(prefix + "q_a_proj", mla.q_lora_rank, spec_.hidden);
    Add(prefix + "q_a_layernorm.weight", {mla.q_lora_rank}, 0.2F, 1);
    AddLinear(prefix + "q_b_proj", mla.heads * mla.query_dim(), mla.q_lora_rank);
    AddLinear(prefix + "kv_a_proj_with_mqa", mla.latent_dim(), spec_.hidden);
    Add(prefix + "kv_a_layernorm.weight", {mla.kv_lora_rank}, 0.2F, 1);
    AddLinear(prefix + "kv_b_proj", mla.heads * (mla.nope_dim + mla.value_dim), mla.kv_lora_rank);
    AddLinear(prefix + "o_proj", spec_.hidden, mla.heads * mla.value_dim);
  }

  void AddExperts(const std::string& prefix) {
    const model::ExpertsSpec& experts = spec_.experts;
    const int64_t count = spec_.moe.num_experts;
    AddLinear(prefix + spec_.names.router, count, spec_.hidden, experts.has_router_bias);
    if (experts.has_correction_bias) Add(prefix + spec_.names.correction_bias, {count}, 0.1F);
    if (experts.shared_width > 0) AddMlp(prefix + spec_.names.shared, experts.shared_width);
    if (experts.has_shared_gate) AddLinear(prefix + spec_.names.shared_gate, 1, spec_.hidden);
    const std::string place = prefix + spec_.names.experts;
    if (spec_.expert_storage == ExpertStorage::kOutputMajor) {
      for (int64_t e = 0; e < count; ++e) AddMlp(fmt::format("{}{}.", place, e), experts.width);
      return;
    }
    Add(place + "gate_up_proj", {count, spec_.hidden, 2 * experts.width}, 0.4F);
    Add(place + "down_proj", {count, experts.width, spec_.hidden}, 0.4F);
    if (!experts.has_bias) return;
    Add(place + "gate_up_proj_bias", {count, 2 * experts.width}, 0.3F);
    Add(place + "down_proj_bias", {count, spec_.hidden}, 0.3F);
  }

  const ModelSpec& spec_;
  std::mt19937_64 random_;
  std::vector<Buffer> buffers_;
  std::vector<std::pair<std::string, TensorView>> tensors_;
};

void Write(const FamilyConfig& family, const std::string& folder, uint64_t seed) {
  std::filesystem::create_directories(folder);
  Json config = Json::parse(kCommon);
  config.merge_patch(Json::parse(family.changes));
  WriteFileWhole(folder + "/config.json", DumpJson(config));
  const model::ModelReading reading = model::ReadModel(folder);
  Builder(reading.spec, seed).Write(folder + "/model.safetensors");
}

}  // namespace

void WriteRandomModel(const std::string& folder, uint64_t seed) { Write(kQwen3Moe, folder, seed); }

void WriteLayoutModel(const std::string& folder, uint64_t seed) {
  Write(kLayoutModel, folder, seed);
}

std::vector<std::string> WriteRandomFamilies(uint64_t seed) {
  std::vector<std::string> folders;
  for (const FamilyConfig& family : kFamilies) {
    folders.push_back(TemporaryFolder(fmt::format("random_{}", family.name)));
    Write(family, folders.back(), seed);
  }
  return folders;
}

std::string TemporaryFolder(const std::string& name) {
  struct Folder {
    std::string path;
    ~Folder() {
      std::error_code ignored;
      std::filesystem::remove_all(path, ignored);
    }
  };
  static std::vector<std::unique_ptr<Folder>> folders;
  const auto path =
      std::filesystem::temp_directory_path() / fmt::format("wideload.{}.{}", ::getpid(), name);
  folders.push_back(std::make_unique<Folder>(Folder{path.string()}));
  std::filesystem::create_directories(path);
  return path.string();
}

}  // namespace wideload::testing_support
