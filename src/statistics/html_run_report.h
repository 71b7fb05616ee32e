// How a run went, as one self-contained HTML page. Pure; thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "statistics/run_series.h"

namespace wideload::statistics {

struct HtmlRunReportOptions {
  std::string title;                    // of the page
  std::vector<std::string> notes = {};  // one line each, below the title
  std::vector<int32_t> layers;          // model index of each layer with experts
};

// Imbalance over the iterations, heat map of layers x ranks over the whole run, slots fetched and
// tokens by iteration, and tables of all of it. Without layers with experts: the tokens alone.
std::string FormatHtmlRunReport(const RunSeries& series, const HtmlRunReportOptions& options);

}  // namespace wideload::statistics
