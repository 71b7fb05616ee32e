// What the engine has done since its start, in the text format of Prometheus: beside what Metrics
// counts of requests. Pure; thread-safe.
#pragma once

#include <string>

#include "runtime/engine_monitor.h"
#include "serve/served_model.h"

namespace wideload::serve {

// The lines of all metrics; `label` (model_name="...") stands at each. `kv_usage` is the share of
// the blocks of all KV caches in use.
std::string EngineMetricsText(const runtime::EngineCourse& course, const ServedModel& model,
                              double kv_usage, const std::string& label);

}  // namespace wideload::serve
