// Qwen3-MoE (Qwen3MoeForCausalLM): grouped-query attention with per-head q/k norm, and routed
// experts or a dense MLP per layer. Source: the published config and modeling files of Qwen3-MoE;
// equations in the layer itself.
#pragma once

#include <memory>

#include "checkpoint/model_config.h"
#include "model/loader.h"
#include "model/model.h"

namespace wideload::model {

int64_t Qwen3MoeWeightBytes(const checkpoint::ModelConfig& config, compute::KernelSet kernels);

// `max_positions`: length of the RoPE tables. Errors: as WeightLoader.
std::unique_ptr<Model> LoadQwen3Moe(const checkpoint::ModelConfig& config, WeightLoader& loader,
                                    int64_t max_positions);

}  // namespace wideload::model
