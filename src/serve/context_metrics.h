// Prefill and decode apart, in the text format of Prometheus: what was handed over, and what each
// context server and each generation server has to do. Pure.
#pragma once

#include <span>
#include <string>

#include "runtime/cached_prompt.h"
#include "runtime/job_runner.h"
#include "runtime/prompt_computer.h"

namespace wideload::serve {

// The lines of all metrics; `label` (model_name="...") stands at each.
std::string ContextMetricsText(const runtime::HandOverFigures& hand_over, int64_t num_retries,
                               std::span<const runtime::ContextFigures> servers,
                               const std::string& label);

struct GenerationState {
  runtime::EngineFigures figures;
  bool is_running = true;
};
// The same of those that generate.
std::string GenerationMetricsText(std::span<const GenerationState> servers,
                                  const std::string& label);

}  // namespace wideload::serve
