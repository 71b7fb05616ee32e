// A decoder-only transformer as its Hugging Face config.json describes it: a plain value, in one
// spelling whatever the file used (transformers 4 or 5). Thread-safe: no state.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/dtype.h"

namespace wideload::checkpoint {

// How positions beyond the trained context are reached.
enum class RopeType { kDefault, kLinear, kYarn, kLlama3 };

// The name in config.json.
std::string_view RopeTypeName(RopeType type);

// Rotary position embedding. The fields after `type` matter for kLinear (factor), kLlama3 (until
// high_freq_factor) and kYarn (all but these two).
struct RopeConfig {
  double theta = 10000.0;
  double rotary_fraction = 1.0;  // of each head is rotated, from its start
  RopeType type = RopeType::kDefault;
  double factor = 1.0;
  int64_t original_max_positions = 0;
  double low_freq_factor = 0;
  double high_freq_factor = 0;
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  std::optional<double> attention_factor{};  // multiplies cos and sin; derived when absent
  std::optional<double> mscale{};
  std::optional<double> mscale_all_dim{};
  bool truncate = true;  // round the correction range outwards to whole dimensions
  bool operator==(const RopeConfig&) const = default;
};

// What the models of all families have in common. A family corrects what its own keys say
// otherwise.
struct ModelConfig {
  std::string architecture;  // "Qwen3MoeForCausalLM"
  std::string model_type;    // "qwen3_moe"; may be empty
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t num_layers = 0;
  int64_t num_extra_layers = 0;  // for speculative decoding, stored after the others
  int64_t num_attention_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t intermediate_size = 0;      // of dense MLPs; 0 when the file has none
  int64_t moe_intermediate_size = 0;  // of one expert; 0 in a dense model
  int64_t num_experts = 0;            // 0: a dense model
  int64_t top_k = 0;
  std::vector<int32_t> moe_layers;  // that route tokens to experts, ascending; others are dense
  bool tie_word_embeddings = false;
  double rms_norm_eps = 0;
  int64_t max_position_embeddings = 0;  // the context; with yarn as far as it stretches it
  RopeConfig rope;
  DType dtype = DType::kBF16;  // what the file names; the tensors carry their own
  std::string quantization;    // quant_method, or "" when weights are not quantised
  std::vector<int64_t> eos_ids;
  std::optional<int64_t> bos_id;
  bool operator==(const ModelConfig&) const = default;

  int64_t NumMoeLayers() const { return static_cast<int64_t>(moe_layers.size()); }
  int64_t QueryHeadsPerKvHead() const { return num_attention_heads / num_kv_heads; }
};

class ConfigReader;

// Reads what is common. What is missing or impossible goes to reader.faults(), and then the result
// is of no use. Every size is bounded so that no product of sizes (elements, bytes, KV bytes at
// full context) exceeds 2^62. Source: reference models' config classes in transformers 4 and 5.
ModelConfig ReadModelConfig(ConfigReader& reader);

// That of folder/config.json, of whatever architecture. Errors: kCorrupt or kInvalid naming file,
// field, found and allowed for all missing or impossible fields; kNotFound when folder or file is
// missing.
ModelConfig ReadModelConfig(const std::string& folder);

// The text of folder/config.json, whose path is set. Errors: kNotFound when folder or file is
// missing, kInvalid when `folder` is a file.
std::string ReadConfigText(const std::string& folder, std::string& path);

}  // namespace wideload::checkpoint
