// Engines of tests whose ranks are forked processes of this host.
#pragma once

#include <functional>
#include <string>

#include "model/model.h"
#include "runtime/engine.h"
#include "support/rank_processes.h"

namespace wideload {

struct EngineProcesses {
  const runtime::EngineOptions& options;
  std::string job = FreshJobName();
  std::function<const model::Model&(int rank)> model_of;
  std::function<void(runtime::Engine&)> lead;  // run by rank 0, with the engine
};

// Forks a process per rank; rank 0 runs `lead`, the others serve until its engine ends. What
// RunRankProcesses says of errors and failed expectations holds.
ProcessOutcome RunEngineProcesses(const EngineProcesses& run);

}  // namespace wideload
