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

enum class RopeType { kDefault, kLinear, kYarn };

std::string_view RopeTypeName(RopeType type);

// Rotary position embedding. The fields after `type` matter for kLinear (factor) and kYarn (all).
struct RopeConfig {
  double theta = 10000.0;
  RopeType type = RopeType::kDefault;
  double factor = 1.0;
  int64_t original_max_positions = 0;
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  std::optional<double> attention_factor{};  // multiplies cos and sin; derived when absent
  std::optional<double> mscale{};
  std::optional<double> mscale_all_dim{};
  bool truncate = true;  // round the correction range outwards to whole dimensions
  bool operator==(const RopeConfig&) const = default;
};

struct ModelConfig {
  std::string architecture;  // "Qwen3MoeForCausalLM"
  std::string model_type;    // "qwen3_moe"; may be empty
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t num_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t intermediate_size = 0;  // of dense MLPs; 0 when the file has none and no layer needs it
  int64_t moe_intermediate_size = 0;  // of one expert; 0 in a dense model
  int64_t num_experts = 0;            // 0: a dense model
  int64_t top_k = 0;
  bool norm_topk_prob = false;
  int64_t decoder_sparse_step = 1;
  std::vector<int64_t> mlp_only_layers;
  bool tie_word_embeddings = false;
  double rms_norm_eps = 0;
  int64_t max_position_embeddings = 0;
  RopeConfig rope;
  DType dtype = DType::kF32;     // what the file names; the tensors carry their own
  std::vector<int64_t> eos_ids;  // generation_config.json overrides it; may be empty
  std::optional<int64_t> bos_id;
  bool operator==(const ModelConfig&) const = default;

  // Whether layer (in [0, num_layers)) routes tokens to experts; otherwise its MLP is dense.
  bool IsMoeLayer(int64_t layer) const;
  int64_t NumMoeLayers() const;
  int64_t QueryHeadsPerKvHead() const { return num_attention_heads / num_kv_heads; }
};

// What a config.json says, and what it asks for that a ModelConfig cannot express: one sentence
// each, naming file, field and value.
struct ModelConfigReading {
  ModelConfig config;
  std::vector<std::string> unsupported;
};

// Reads a config.json given as text; `source` is its path for messages. Errors: kCorrupt or
// kInvalid naming file, field, found and allowed for a missing or impossible field. Every size is
// bounded so that no product of sizes (elements, bytes, KV bytes at full context) exceeds 2^62.
// Source: reference models' config classes in transformers 4 and 5.
ModelConfigReading ParseModelConfig(std::string_view text, const std::string& source);

// ParseModelConfig of folder/config.json. Errors: as there; kNotFound when folder or file is
// missing.
ModelConfigReading InspectModelConfig(const std::string& folder);

// The config of a model that is to be run: kUnsupported, with every reason, when there is anything
// that a ModelConfig cannot express. The architecture is not judged here.
ModelConfig ReadModelConfig(const std::string& folder);

}  // namespace wideload::checkpoint
