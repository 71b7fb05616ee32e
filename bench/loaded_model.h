// A model for benchmarks that run the engine.
#pragma once

#include <memory>
#include <string>

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

}  // namespace wideload::bench
