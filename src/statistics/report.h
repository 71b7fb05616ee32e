// How unequal the load of ranks (or experts) was: the figures and the text of TensorRT-LLM's
// report_load_statistics.py. Pure; thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "statistics/eplb_yaml.h"
#include "statistics/expert_statistics.h"

namespace wideload::statistics {

struct ReportOptions {
  int32_t ep_size = 0;      // ranks to report for; 0: those that recorded
  bool per_expert = false;  // columns are experts (slots under a projection), not ranks
  const EplbConfig* projection = nullptr;  // what the load would have been under this placement
  std::string projection_source = {};      // its name in messages
};

// Each figure is computed per iteration over the columns and then averaged over iterations, in
// single precision in PyTorch's order.
struct LoadFigures {
  double mean = 0;
  double std = 0;              // sample standard deviation (n - 1); NaN for one column
  double imbalance_ratio = 0;  // (max - mean) / mean; NaN without load
};

struct LoadReport {
  std::vector<int32_t> layers;
  std::vector<LoadFigures> rows;  // [layers]
  LoadFigures average;            // over layers, NaN left out
};

// Without a projection rank r's load is that of experts [r * E / R, (r + 1) * E / R); with one, an
// expert's load is shared equally by its slots.
// Errors: kInvalid: ep_size does not divide the experts (the slots), a projection of another model
// or without a layer of the statistics.
LoadReport MakeLoadReport(const ExpertStatistics& statistics, const ReportOptions& options);

// "Load statistics:" and a table with the columns mean, std, imbalance-ratio as pandas prints it.
std::string FormatLoadReport(const LoadReport& report);

}  // namespace wideload::statistics
