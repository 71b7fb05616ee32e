// What /dashboard shows, as JSON. Its fields are listed in docs/howto/serve.md. Thread-safe.
#pragma once

#include <cstdint>
#include <string>

#include "runtime/job_runner.h"
#include "serve/served_model.h"

namespace wideload::serve {

struct DashboardSource {
  const ServedModel& model;
  const runtime::JobRunner& runner;  // that is watched
  size_t engine = 0;                 // of its engines the one that is shown; it has a monitor
  std::string version;               // of the program
  int64_t num_open = 0;              // requests that have come and are not answered
  bool is_draining = false;
};

// "/dashboard/data": sums since the start, by layer and rank, the course of the run, and how the
// host does.
std::string DashboardDataJson(const DashboardSource& source);
// "/dashboard/experts": tokens routed to each expert since the start, and what the slots hold.
std::string DashboardExpertsJson(const runtime::EngineMonitor& monitor);

}  // namespace wideload::serve
