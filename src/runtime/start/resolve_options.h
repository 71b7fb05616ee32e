// What the options of a run mean for a given model and machine.
#pragma once

#include <cstdint>
#include <vector>

#include "checkpoint/model_config.h"
#include "config/flags.h"
#include "runtime/engine_options.h"
#include "runtime/processes/agreement.h"

namespace wideload::runtime {

// The ranks of a run and where they are.
struct RankPlaces {
  parallel::Layout layout;     // of the whole run
  int32_t num_ranks_here = 1;  // on this host; its memory is shared by them
  bool are_processes = false;
  int32_t cores_per_rank = 1;  // 1 or more
};

// Of ranks that are threads: as the options say. Errors: as config::ResolveLayout.
RankPlaces ThreadPlaces(const config::EngineFlags& flags);

// The options but for the number of KV blocks. Errors: kInvalid naming the flag, what was given and
// what is allowed; kUnsupported for kernels this machine cannot run.
EngineOptions ResolveOptions(const config::EngineFlags& flags,
                             const checkpoint::ModelConfig& config, const RankPlaces& places);

// What processes of a run must have been given alike, as flags and values.
std::vector<Fact> FlagFacts(const config::EngineFlags& flags);

}  // namespace wideload::runtime
