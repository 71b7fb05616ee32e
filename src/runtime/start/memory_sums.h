// What a model and its ranks take of a machine's memory, before any of it is taken.
#pragma once

#include <cstdint>
#include <vector>

#include "checkpoint/memory_plan.h"
#include "model/spec.h"
#include "runtime/start/resolve_options.h"

namespace wideload::runtime {

// The bytes of a rank's exchange segment.
uint64_t ExchangeBytes(const model::ModelSpec& spec, const EngineOptions& options);

// What a model takes on this host, as measuring a load gives it.
struct ModelBytes {
  int64_t weights = 0;                        // all of them, those that ranks divide once
  int64_t all_but_experts = 0;                // in one arena
  std::vector<std::vector<int64_t>> experts;  // [MoE layers][E * parts of each that are here]
  int64_t expert = 0;                         // the largest of them
};

// What a rank's slots take beside the model.
int64_t SlotBytes(const model::ModelSpec& spec, const ModelBytes& bytes,
                  const EngineOptions& options);

// What the ranks here take together, with options.num_kv_blocks each.
std::vector<checkpoint::MemoryPart> MemoryParts(const model::ModelSpec& spec,
                                                const ModelBytes& bytes, const RankPlaces& places,
                                                const EngineOptions& options);

// Errors: kInvalid when the model cannot be divided so.
void CheckLayout(const model::ModelSpec& spec, const parallel::Layout& layout);

// The number of KV blocks of a rank. Errors: kInvalid; kResource when weights, KV cache and buffers
// of the ranks here together exceed the machine's memory, with the sum.
int64_t PlanMemory(const config::EngineFlags& flags, const model::ModelSpec& spec,
                   const ModelBytes& bytes, const RankPlaces& places, const EngineOptions& options);

}  // namespace wideload::runtime
