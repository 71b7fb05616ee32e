// The commands of `wideload eplb`, one per file, and where they take their loads from.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "statistics/load_files.h"

namespace wideload::apps {

void AddEplbReport(CLI::App& group);
void AddEplbPlan(CLI::App& group);
void AddEplbConvert(CLI::App& group);
void AddEplbCheck(CLI::App& group);
void AddEplbSimulate(CLI::App& group);
void AddEplbRepair(CLI::App& group);
void AddEplbDiagnose(CLI::App& group);

// A statistics folder and the iterations wanted of it.
struct StatisticsFlags {
  std::string path;
  std::optional<int64_t> iter_start;
  std::optional<int64_t> iter_stop;
  std::optional<std::string> eplb_config;  // the file of a run that counted slots
};
CLI::Option* AddStatisticsFlags(CLI::App& command, StatisticsFlags& flags);
// Errors: as ReadStatistics.
statistics::ExpertStatistics ReadFlaggedStatistics(const StatisticsFlags& flags, bool sum_ranks);

// Exactly one of a statistics folder, a load table and a routing file.
struct LoadFlags {
  StatisticsFlags statistics;
  std::string loads;
  std::string routing;
  int32_t num_experts = 0;  // of a routing file; 0: one more than the largest id
};
void AddLoadFlags(CLI::App& command, LoadFlags& flags);

struct RecordedLayer {
  std::vector<double> total;                    // [num_experts]
  std::vector<std::vector<double>> iterations;  // [iterations][num_experts]; {total} if not known
};
struct RecordedLoads {
  int32_t num_experts = 0;
  int32_t ep_size = 0;  // ranks that recorded; 0 when the source does not tell
  std::map<int32_t, RecordedLayer> layers;
};
// A routing file is cut into iterations of tokens_per_iteration; a shorter last one counts in the
// total only, unless there is no other. A load table is one iteration.
// Errors: as the readers; kInvalid unless exactly one source is given.
inline constexpr int64_t kTokensPerIteration = 1024;
RecordedLoads ReadRecordedLoads(const LoadFlags& flags,
                                int64_t tokens_per_iteration = kTokensPerIteration);

}  // namespace wideload::apps
