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

// What the figures are to be of.
struct ReportOptions {
  int32_t ep_size = 0;      // ranks to report for; 0: those that recorded
  bool per_expert = false;  // columns are experts (slots under a projection), not ranks
  const EplbConfig* projection = nullptr;  // what the load would have been under this placement
  std::string projection_source = {};      // its name in messages
  // Under a projection an expert's tokens are divided so that the busiest rank of the iteration has
  // least (fractional); else evenly.
  bool optimal_split = false;
};

// Each figure is computed per iteration over the columns and then averaged over the iterations in
// which the layer has load, in single precision in PyTorch's order.
struct LoadFigures {
  double mean = 0;
  double std = 0;              // sample standard deviation (n - 1); NaN for one column
  double imbalance_ratio = 0;  // (max - mean) / mean
  double balancedness = 0;     // mean / max, as vLLM and SGLang log it
};

// Figures of every layer with load, and of all.
struct LoadReport {
  std::vector<int32_t> layers;    // those with load
  std::vector<LoadFigures> rows;  // [layers]
  LoadFigures average;            // over layers; NaN without any, and for std where it is NaN
  std::vector<std::vector<double>> ratios = {};  // [layers][iterations with load] imbalance ratios
  std::vector<int32_t> layers_without_load = {};
  int64_t empty_iterations = 0;  // in which no layer has load
  int64_t partly_empty = 0;  // in which some layers have load and others, loaded elsewhere, none
};

// The value below which `share` of the values lie (nearest rank), of one vector or of all of
// several. Errors: a failed check without values.
double Percentile(std::vector<double> values, double share);
// The same over all vectors together.
double PercentileOfAll(const std::vector<std::vector<double>>& values, double share);

// Without a projection rank r's load is that of experts [r * E / R, (r + 1) * E / R); with one, an
// expert's load is shared by its slots: equally, or as optimal_split says. A projection without
// layers starts contiguous. Errors: kInvalid: ep_size does not divide the experts (the slots), or
// one rank for figures that compare ranks; a projection of another model or without a layer of the
// statistics.
LoadReport MakeLoadReport(const ExpertStatistics& statistics, const ReportOptions& options);

// "Load statistics:" and a table with the columns mean, std, imbalance-ratio as pandas prints it.
std::string FormatLoadReport(const LoadReport& report);

}  // namespace wideload::statistics
