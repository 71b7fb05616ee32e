// Which layers of a Hugging Face folder's model have routed experts and what one of these weighs,
// also for architectures that are not implemented. Plain values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/model_config.h"

namespace wideload::checkpoint {

struct ExpertLayers {
  std::vector<int32_t> layers;        // ascending, below num_hidden_layers; dense ones leave gaps
  std::vector<int32_t> extra_layers;  // prediction layers with experts, numbered on from there
  // Of one expert and layer, scales included; nothing when config.json's quantization is not known.
  std::optional<uint64_t> expert_bytes = {};
  std::string storage = {};   // how config.json says that weights are stored
  bool from_weights = false;  // as the tensors are; else reckoned from config.json
  int64_t num_layers = 0;     // of the model, dense ones included
  // Keys and values of one token in all layers, 2 bytes a number; nothing when config.json lacks
  // the fields.
  std::optional<uint64_t> kv_bytes_per_token = {};
};

// Looks at the names and sizes of the folder's tensors, or at config.json alone where there are no
// weights. `config` is the folder's. Errors: everything Checkpoint refuses; kInvalid naming the
// field of config.json.
ExpertLayers FindExpertLayers(const std::string& folder, const ModelConfig& config);

}  // namespace wideload::checkpoint
