// What `wideload eplb report` says beside TensorRT-LLM's table. Pure; thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "eplb_engine.h"
#include "statistics/expert_statistics.h"
#include "statistics/report.h"

namespace wideload::apps {

// What the figures are of.
struct ReportContext {
  TargetEngine engine;
  RankChoice ranks;
  std::string layout;  // "32 experts in order"
};

// hot: how many of the busiest and idlest experts of a layer are listed; 0: none.
Json ReportJson(const statistics::LoadReport& report, const statistics::ExpertStatistics& experts,
                const ReportContext& context, int32_t hot);
// The list of the busiest and idlest experts; empty for `hot` 0.
std::string HotText(const statistics::ExpertStatistics& experts, int32_t hot);
// What the table does not say: for whom, on what ranks, and the figures beside the ratio.
std::vector<std::string> Notes(const statistics::LoadReport& report, const ReportContext& context);
// Which layers and iterations are left out for want of load.
std::vector<std::string> EmptyNotes(const statistics::LoadReport& report);

}  // namespace wideload::apps
