// The flags of every command that runs the engine, and what they mean for a given model and
// machine.
#pragma once

#include <cstdint>
#include <string>

#include "checkpoint/model_config.h"
#include "command_line.h"
#include "model/spec.h"
#include "runtime/engine.h"
#include "runtime/processes/agreement.h"

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
  int32_t num_ranks = 0;  // 0: as many as mpirun started, else 1
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
void AddEngineFlags(Command command, EngineFlags& flags);

// The ranks of a run and where they are.
struct RankPlaces {
  int32_t num_ranks = 1;       // of the whole run
  int32_t num_ranks_here = 1;  // on this host; its memory is shared by them
  bool are_processes = false;
  int32_t cores_per_rank = 1;  // 1 or more
};

// Of ranks that are threads: as --ep says.
RankPlaces ThreadPlaces(const EngineFlags& flags);

// The options but for the number of KV blocks. Errors: kInvalid naming the flag, what was given and
// what is allowed; kUnsupported for kernels this machine cannot run.
runtime::EngineOptions ResolveOptions(const EngineFlags& flags,
                                      const checkpoint::ModelConfig& config,
                                      const RankPlaces& places);

// The bytes of a rank's exchange segment.
uint64_t ExchangeBytes(const model::ModelSpec& spec, const runtime::EngineOptions& options);

// The number of KV blocks of a rank. Errors: kInvalid; kResource when weights, KV cache and buffers
// of the ranks here together exceed the machine's memory, with the sum.
// `weight_bytes`: as measuring a load gave them.
int64_t PlanMemory(const EngineFlags& flags, const model::ModelSpec& spec, int64_t weight_bytes,
                   const RankPlaces& places, const runtime::EngineOptions& options);

// What processes of a run must have been given alike, as flags and values.
std::vector<runtime::Fact> FlagFacts(const EngineFlags& flags);

}  // namespace wideload::apps
