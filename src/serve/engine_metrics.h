// What engines have done since their start, in the text format of Prometheus: beside what Metrics
// counts of requests. Pure; thread-safe.
#pragma once

#include <span>
#include <string>

#include "runtime/engine_monitor.h"
#include "serve/served_model.h"

namespace wideload::serve {

// One of the engines that generate.
struct EngineState {
  runtime::EngineCourse course;
  double kv_usage = 0;      // share of the blocks of all its KV caches in use
  std::string labels = {};  // at its lines: empty, or begins with a comma
};

// The lines of all metrics; `label` (model_name="...") stands at each.
std::string EngineMetricsText(std::span<const EngineState> engines, const ServedModel& model,
                              const std::string& label);

}  // namespace wideload::serve
