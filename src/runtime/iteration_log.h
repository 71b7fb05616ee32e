// Lines of what each iteration was, in the form of TensorRT-LLM's print_iter_log. Pure.
#pragma once

#include <string>

#include "runtime/engine.h"

namespace wideload::runtime {

// A line of each rank, as PyExecutor writes it: those of a group have the same numbers. `seconds`:
// that the iteration took; `timestamp`: seconds since the caller's start.
std::string IterationLogLines(const IterationInfo& info, const EngineOptions& options,
                              double seconds, double timestamp);

}  // namespace wideload::runtime
