// The load report as one self-contained HTML page: no script, no font, no picture from elsewhere;
// light or dark as the reader's system is. Pure; thread-safe.
#pragma once

#include <string>
#include <vector>

#include "statistics/expert_statistics.h"
#include "statistics/report.h"

namespace wideload::statistics {

struct HtmlReportOptions {
  std::string source;                      // where the statistics are from, as the reader knows it
  int32_t ep_size = 0;                     // ranks; 0: those that recorded
  const EplbConfig* projection = nullptr;  // adds what the load would have been under it
  std::string projection_source = {};
  // The same iterations as counted per slot, if the run counted slots: the recorded load is shown
  // on the slots of the ranks that recorded.
  const ExpertStatistics* slots = nullptr;
  std::string split = "even split";     // how the projection divides an expert's tokens
  std::vector<std::string> notes = {};  // one line each, below the title
};

// Heat map of layers x ranks, load curve of experts, hot and cold experts, imbalance per layer,
// table of all figures. Without `slots` the recorded load is shown on contiguous experts: on
// ep_size ranks where these divide the experts, else on the ranks that recorded. Layers without
// load are shown as such and left out of the figures. Errors: those of MakeLoadReport.
std::string FormatHtmlReport(const ExpertStatistics& statistics, const HtmlReportOptions& options);

}  // namespace wideload::statistics
