// The flags of every command that runs the engine, and what they mean for a given model and
// machine.
#pragma once

#include <cstdint>
#include <vector>

#include "checkpoint/memory_plan.h"
#include "checkpoint/model_config.h"
#include "command_line.h"
#include "config/flags.h"
#include "model/spec.h"
#include "runtime/engine.h"
#include "runtime/processes/agreement.h"

namespace wideload::apps {

using config::EngineFlags;

void AddEngineFlags(Command command, EngineFlags& flags);

// The ranks of a run and where they are.
struct RankPlaces {
  parallel::Layout layout;     // of the whole run
  int32_t num_ranks_here = 1;  // on this host; its memory is shared by them
  bool are_processes = false;
  int32_t cores_per_rank = 1;  // 1 or more
};

// Of ranks that are threads: as the options say. Errors: as config::ResolveLayout.
RankPlaces ThreadPlaces(const EngineFlags& flags);

// The options but for the number of KV blocks. Errors: kInvalid naming the flag, what was given and
// what is allowed; kUnsupported for kernels this machine cannot run.
runtime::EngineOptions ResolveOptions(const EngineFlags& flags,
                                      const checkpoint::ModelConfig& config,
                                      const RankPlaces& places);

// The bytes of a rank's exchange segment.
uint64_t ExchangeBytes(const model::ModelSpec& spec, const runtime::EngineOptions& options);

// What a model takes on this host, as measuring a load gives it.
struct ModelBytes {
  int64_t weights = 0;                        // all of them, those that ranks divide once
  int64_t all_but_experts = 0;                // in one arena
  std::vector<std::vector<int64_t>> experts;  // [MoE layers][E * parts of each that are here]
  int64_t expert = 0;                         // the largest of them
};

// What a rank's slots take beside the model.
int64_t SlotBytes(const model::ModelSpec& spec, const ModelBytes& bytes,
                  const runtime::EngineOptions& options);

// What the ranks here take together, with options.num_kv_blocks each.
std::vector<checkpoint::MemoryPart> MemoryParts(const model::ModelSpec& spec,
                                                const ModelBytes& bytes, const RankPlaces& places,
                                                const runtime::EngineOptions& options);

// Errors: kInvalid when the model cannot be divided so.
void CheckLayout(const model::ModelSpec& spec, const parallel::Layout& layout);

// The number of KV blocks of a rank. Errors: kInvalid; kResource when weights, KV cache and buffers
// of the ranks here together exceed the machine's memory, with the sum.
int64_t PlanMemory(const EngineFlags& flags, const model::ModelSpec& spec, const ModelBytes& bytes,
                   const RankPlaces& places, const runtime::EngineOptions& options);

// What processes of a run must have been given alike, as flags and values.
std::vector<runtime::Fact> FlagFacts(const EngineFlags& flags);

}  // namespace wideload::apps
