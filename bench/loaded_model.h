// A model for benchmarks that run the engine.
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "checkpoint/model_config.h"
#include "compute/exec.h"
#include "model/model.h"

namespace wideload::bench {

struct LoadedModel {
  checkpoint::ModelConfig config;
  std::unique_ptr<model::Model> model;
  compute::KernelSet kernels = compute::AutoKernelSet();
};

// All of the folder. Errors: as ReadModel and Checkpoint.
LoadedModel Load(const std::string& folder, compute::KernelSet kernels = compute::AutoKernelSet());
// The same for `tensor_ranks` threads that share attention, experts in `expert_parts` parts.
LoadedModel LoadForRanks(const std::string& folder, int32_t tensor_ranks, int32_t expert_parts = 1);

// So many ids of the model's vocabulary.
std::vector<int32_t> RandomPrompt(const LoadedModel& loaded, int64_t num_tokens,
                                  std::mt19937& random);

}  // namespace wideload::bench
