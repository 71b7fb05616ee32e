// The flags of every command that runs the engine, and what they mean for a given model and
// machine.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>

#include "checkpoint/model_config.h"
#include "model/registry.h"
#include "runtime/engine.h"

namespace wideload::apps {

struct EngineFlags {
  std::string model;    // folder; empty: the embedded model
  int32_t threads = 0;  // of a rank; 0: the machine's cores divided by the ranks, at least 1
  std::string kernels = "auto";
  int64_t max_seq_len = 0;      // 0: the model's context
  std::string kv_cache_memory;  // per rank: a size, a fraction of free memory, or empty
  int64_t max_num_tokens = 2048;
  int64_t max_batch_size = 64;
  bool check_weights = false;
  // layout
  int32_t num_ranks = 1;
  int32_t num_slots = 0;  // 0: from the placement file, else one per expert
  std::string placement = "contiguous";
  std::string split = "optimal";
  int64_t moe_max_num_tokens = 0;
  double deadline_s = 4;
  // statistics
  std::string statistic_path;
  std::string statistic_iter_range;
  bool replace_statistics = false;
};
void AddEngineFlags(CLI::App& app, EngineFlags& flags);

// Errors: kInvalid naming the flag, what was given and what is allowed; kUnsupported for kernels
// this machine cannot run; kResource when weights, KV cache and buffers together exceed the
// machine's memory, with the sum.
runtime::EngineOptions ResolveOptions(const EngineFlags& flags,
                                      const checkpoint::ModelConfig& config,
                                      const model::Family& family);

}  // namespace wideload::apps
