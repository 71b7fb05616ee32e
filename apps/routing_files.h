// Reads routing traces and expert loads from safetensors files, by tensor name and shape only.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "eplb/simulate.h"

namespace wideload::apps {

// Two layouts: `expert_ids` [token, layer, k] with `answer_tokens` [answer]; or, for each task,
// TASK [token, layer, k] with TASK_document_tokens [document], tasks in the order of their names.
// num_experts 0: one more than the largest id. Errors: kNotFound, kCorrupt, kInvalid naming file,
// tensor, found and allowed.
eplb::RoutingTrace ReadRoutingFile(const std::string& path, int32_t num_experts);

struct LayerLoads {
  int32_t num_experts = 0;
  std::vector<std::vector<double>> layers;  // those without any load are left out
  std::vector<int32_t> layer_ids;           // row of each in the file
};
// "FILE:TENSOR", a [layer, expert] tensor of integers or floats. Errors: as above.
LayerLoads ReadLoads(const std::string& file_and_tensor);

}  // namespace wideload::apps
