// The commands of `wideload bench` beside throughput, one per file.
#pragma once

#include "command_line.h"

namespace wideload::apps {

// Before a command's name, as trtllm-bench has them.
struct BenchModel {
  std::string name, path;

  const std::string& folder() const { return path.empty() ? name : path; }
  const char* flag() const { return path.empty() ? "bench --model" : "bench --model-path"; }
};

void AddBenchServe(Command bench);
// `model` must live as long as the command.
void AddBenchPrepareDataset(Command bench, const BenchModel& model);

}  // namespace wideload::apps
