#include "support/random_model.h"

#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <random>
#include <vector>

#include "base/file.h"
#include "tensor/buffer.h"
#include "tensor/safetensors.h"

namespace wideload::testing_support {
namespace {

constexpr const char* kConfig = R"({
  "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "vocab_size": 331, "hidden_size": 40,
  "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 24, "intermediate_size": 56,
  "moe_intermediate_size": 24, "num_experts": 20, "num_experts_per_tok": 5, "norm_topk_prob": false,
  "decoder_sparse_step": 1, "mlp_only_layers": [1], "tie_word_embeddings": false, "attention_bias": false,
  "hidden_act": "silu", "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "rope_scaling": null,
  "max_position_embeddings": 512, "torch_dtype": "bfloat16", "eos_token_id": 0
})";

class Builder {
 public:
  explicit Builder(uint64_t seed) : random_(seed) {}

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
  void AddMlp(const std::string& prefix, int64_t width) {
    Add(prefix + "gate_proj.weight", {width, 40}, 0.4F);
    Add(prefix + "up_proj.weight", {width, 40}, 0.4F);
    Add(prefix + "down_proj.weight", {40, width}, 0.4F);
  }
  void Write(const std::string& path) const { WriteSafetensors(path, tensors_); }

 private:
  std::mt19937_64 random_;
  std::vector<Buffer> buffers_;
  std::vector<std::pair<std::string, TensorView>> tensors_;
};

}  // namespace

void WriteRandomModel(const std::string& folder, uint64_t seed) {
  std::filesystem::create_directories(folder);
  WriteFileWhole(folder + "/config.json", kConfig);
  Builder builder(seed);
  builder.Add("model.embed_tokens.weight", {331, 40}, 1);
  builder.Add("lm_head.weight", {331, 40}, 0.5F);
  builder.Add("model.norm.weight", {40}, 0.1F, 1);
  for (int layer = 0; layer < 3; ++layer) {
    const std::string prefix = fmt::format("model.layers.{}.", layer);
    builder.Add(prefix + "input_layernorm.weight", {40}, 0.1F, 1);
    builder.Add(prefix + "post_attention_layernorm.weight", {40}, 0.1F, 1);
    builder.Add(prefix + "self_attn.q_proj.weight", {96, 40}, 0.4F);
    builder.Add(prefix + "self_attn.k_proj.weight", {48, 40}, 0.4F);
    builder.Add(prefix + "self_attn.v_proj.weight", {48, 40}, 0.4F);
    builder.Add(prefix + "self_attn.o_proj.weight", {40, 96}, 0.3F);
    builder.Add(prefix + "self_attn.q_norm.weight", {24}, 0.2F, 1);
    builder.Add(prefix + "self_attn.k_norm.weight", {24}, 0.2F, 1);
    if (layer == 1) {
      builder.AddMlp(prefix + "mlp.", 56);
      continue;
    }
    builder.Add(prefix + "mlp.gate.weight", {20, 40}, 0.6F);
    for (int expert = 0; expert < 20; ++expert)
      builder.AddMlp(fmt::format("{}mlp.experts.{}.", prefix, expert), 24);
  }
  builder.Write(folder + "/model.safetensors");
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
