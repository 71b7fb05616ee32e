// An engine whose ranks are forked processes of this host.
#pragma once

#include <functional>

#include "runtime/engine.h"
#include "support/rank_processes.h"

namespace wideload::testing_support {

// Runs `lead` with the engine in the process of rank 0, while the others serve it; each computes
// with model_of(its rank), which lies in memory that the fork has copied. `job` names their shared
// memory.
ProcessOutcome RunEngineOnProcesses(const runtime::EngineOptions& options,
                                    const std::function<const model::Model&(int rank)>& model_of,
                                    const std::function<void(runtime::Engine&)>& lead,
                                    const std::string& job = FreshJobName());

}  // namespace wideload::testing_support
