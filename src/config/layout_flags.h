// The layout of ranks that the options say, as TensorRT-LLM understands them. Pure.
#pragma once

#include <cstdint>
#include <vector>

#include "config/flags.h"
#include "parallel/mapping.h"

namespace wideload::config {

// --tp ranks share the attention of their requests, --cp such groups the context of theirs, --dp
// of these have requests of their own, and the experts lie on all of them, --ep ranks. With
// --attention-dp the --tp ranks have requests of their own instead. What is not given follows from
// the rest; without --tp, --cp and --dp every rank has requests of its own. `num_processes`: that
// were started together, each a rank; 0 when ranks are threads. Errors: kInvalid naming the options
// that contradict each other and their values, as the user called them; kUnsupported for what would
// split experts. All of that in each of --pp stages.
parallel::Layout ResolveLayout(const EngineFlags& flags, int32_t num_processes);

// What --pp-partition says, for parallel::StageLayers; empty: nothing. Errors: kInvalid.
std::vector<int32_t> StageSizes(const EngineFlags& flags);

// Micro-batches in flight. Errors: kInvalid when there are more than stages.
int32_t NumMicroBatches(const EngineFlags& flags);

}  // namespace wideload::config
