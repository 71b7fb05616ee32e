// The commands of `wideload eplb`, one per file, and where they take their loads from.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "command_line.h"
#include "eplb/placement/batch_loads.h"
#include "eplb/placement/node_rule.h"
#include "file_flags.h"
#include "formats/recording.h"
#include "statistics/eplb_yaml.h"
#include "statistics/load_files.h"

namespace wideload::apps {

void AddEplbReport(Command group);
void AddEplbPlan(Command group);
void AddEplbConvert(Command group);
void AddEplbCheck(Command group);
void AddEplbSimulate(Command group);
void AddEplbRepair(Command group);
void AddEplbDiagnose(Command group);

// A statistics folder and the iterations wanted of it.
struct StatisticsFlags {
  std::string path;
  std::optional<int64_t> iter_start;
  std::optional<int64_t> iter_stop;
  std::optional<std::string> eplb_config;  // placement file of a run that counted slots

  bool HasWindow() const { return iter_start || iter_stop; }
};
Option AddStatisticsFlags(Command command, StatisticsFlags& flags);
std::vector<FileUse> FilesOf(const StatisticsFlags& flags);

// What a folder holds, per expert; and as it was counted, if the run counted slots.
struct FolderRun {
  statistics::ExpertStatistics experts;
  std::optional<statistics::ExpertStatistics> slots;
  std::optional<statistics::EplbConfig> layout;  // of --eplb_config, with layers
};
// `num_experts` is needed for an --eplb_config without layers only; 0: not told.
// Errors: as ReadStatistics and ReadPlacementFile; kInvalid for a placement that does not fit.
FolderRun ReadFolder(const StatisticsFlags& flags, bool sum_ranks, int32_t num_experts);

// Exactly one of a statistics folder, a file of loads and a routing file.
struct LoadFlags {
  StatisticsFlags statistics;
  std::string loads;
  std::string routing;
  std::string axes;                  // of --loads that are an array
  std::string phase;                 // of --loads that tell it: prefill, decode, mixed
  int32_t num_experts = 0;           // of a routing file; 0: one more than the largest id
  int64_t tokens_per_iteration = 0;  // of a routing file; 0: kTokensPerIteration
  std::string layers;                // which rows of the source, or how the model counts them

  // What the user gave as the source, for messages.
  const std::string& Source() const;
};
void AddLoadFlags(Command command, LoadFlags& flags);
std::vector<FileUse> FilesOf(const LoadFlags& flags);
// Errors: kInvalid unless exactly one source is given and the flags fit it.
void CheckLoadFlags(const LoadFlags& flags);

// --loads as the flags say. Notes are logged. Errors: as ReadRecording and KeepPhase.
formats::Recording ReadFlaggedRecording(const LoadFlags& flags);
// The routing file cut into iterations.
statistics::ExpertStatistics ReadFlaggedRouting(const LoadFlags& flags);

struct RecordedLoads {
  int32_t num_experts = 0;
  int32_t ep_size = 0;       // ranks that recorded; 0 when the source does not tell
  std::string ep_size_from;  // "the rank files of stats"
  bool has_batches = true;   // else each layer has one: all that was recorded
  std::map<int32_t, eplb::BatchLoads> layers;
  std::optional<formats::Engine> engine;      // that the source's format implies
  formats::SlotExperts layout;                // as the run placed experts; empty: not told
  std::map<int32_t, eplb::BatchLoads> slots;  // as counted per slot; empty: experts were counted
};
// A routing file is cut into iterations; a shorter last one is of no batch, unless there is no
// other. A load table is one iteration, unless it has steps. --layers with as many layers as
// the source has gives these the model's own numbers; with fewer it takes those out of the source.
// Errors: as the readers and CheckLoadFlags.
inline constexpr int64_t kTokensPerIteration = 1024;
RecordedLoads ReadRecordedLoads(const LoadFlags& flags);
// --ep_size if it was given, else the ranks that recorded. Errors: kInvalid when neither tells, or
// one rank recorded: that is rarely the number asked about.
int32_t EpSizeOf(int32_t ep_size, const RecordedLoads& recorded);

// Errors: kInvalid naming --num_slots: as ValidateSizes, and above num_experts x ep_size, with
// which every rank holds every expert already.
void CheckNumSlots(int32_t num_experts, int32_t num_slots, int32_t ep_size);
// Errors: kInvalid for more ranks than placements are planned for.
void CheckEpSize(int32_t ep_size);

// How ranks and experts are grouped, for policies that look at it and for repair.
struct NodeFlags {
  int32_t num_nodes = 1;
  int32_t num_groups = 1;
  std::optional<int32_t> cross_node_slots;

  int32_t MaxCrossSlots() const { return cross_node_slots.value_or(-1); }  // as policies take it
  eplb::NodeSizes Sizes() const { return {num_nodes, num_groups}; }
};
void AddNodeFlags(Command command, NodeFlags& flags);
// Errors: kInvalid when there is more than one node or group and no policy that `flag` names looks
// at them, or none that bounds cross-node slots for a bound; kNotFound for a policy that there is
// not.
void CheckNodeFlags(const NodeFlags& flags, std::string_view flag,
                    const std::vector<std::string>& policies);

// Where a command that makes a placement file puts it, and how it tells what is in it.
struct PlacementOutput {
  std::string path;
  bool json = false;
};
void AddPlacementOutput(Command command, PlacementOutput& output);
// `inputs`: the files that the command reads. Errors: kInvalid when both want standard output, when
// the output is one of the inputs, or when it cannot be written.
void CheckPlacementOutput(const PlacementOutput& output, std::vector<FileUse> inputs);
// To standard output, or to standard error when the file is there.
void PrintPlacementReport(const PlacementOutput& output, const std::string& text);

// Calls work(layer) for each number below num_layers, on all cores; which thread is not defined.
// From then on SIGINT and SIGTERM let the layers at work end and start no others; what is written
// afterwards is written whole.
// Errors: the first layer's that threw, once all are done; kRunFailed after a signal.
void ForEachLayer(size_t num_layers, const std::function<void(size_t)>& work);
// For a command that catches signals and has written nothing yet. Errors: kRunFailed after a
// signal.
void StopIfInterrupted();
// Processor time of the calling thread.
double ThreadMilliseconds();
// "3-60" or "0,2,5-7". Errors: kInvalid naming --layers unless ascending.
std::vector<int32_t> ParseLayers(const std::string& text);

}  // namespace wideload::apps
