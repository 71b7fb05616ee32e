// Which layers of a Hugging Face folder's model have routed experts and what one of these weighs,
// also for architectures that are not implemented. Plain values.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/model_config.h"

namespace wideload::checkpoint {

struct ExpertLayers {
  std::vector<int32_t> layers;        // ascending, below num_hidden_layers; dense ones leave gaps
  std::vector<int32_t> extra_layers;  // prediction layers with experts, numbered on from there
  uint64_t expert_bytes = 0;          // of one expert and layer, scales and biases included
  bool from_weights = false;          // as the tensors are; else reckoned from config.json
};

// Looks at the names and sizes of the folder's tensors, or at config.json alone where there are no
// weights. `config` is the folder's. Errors: everything Checkpoint refuses; kInvalid naming the
// field of config.json.
ExpertLayers FindExpertLayers(const std::string& folder, const ModelConfig& config);

}  // namespace wideload::checkpoint
