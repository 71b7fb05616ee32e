// `wideload eplb report`: the text of TensorRT-LLM's report_load_statistics.py, for what any engine
// recorded.
#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "eplb_commands.h"
#include "eplb_crossing.h"
#include "eplb_engine.h"
#include "eplb_report_text.h"
#include "formats/placement_file.h"
#include "interrupt.h"
#include "statistics/html_report.h"
#include "statistics/report.h"
#include "statistics/statistics_folder.h"

namespace wideload::apps {
namespace {

struct ReportFlags {
  LoadFlags loads;
  TargetEngineFlags engine;
  bool per_expert = false;
  std::optional<std::string> projection;
  int32_t ep_size = 0;
  int32_t hot = 0;
  int32_t num_nodes = 1;
  std::string html;
  bool json = false;
};

// What was recorded, and what the report is about.
struct Run {
  statistics::ExpertStatistics experts;
  std::optional<statistics::ExpertStatistics> slots;  // as counted, if the run counted slots
  std::optional<formats::Engine> engine;
  int32_t ep_size = 0;  // ranks that recorded; 0: not told
  std::string ep_size_from;
};

// --layers with as many layers as there are gives them new numbers; with fewer takes some.
void ChooseLayers(const std::string& text, statistics::ExpertStatistics& statistics) {
  const std::vector<int32_t> wanted = ParseLayers(text);
  if (wanted.size() == statistics.layers.size()) {
    statistics.layers = wanted;
    return;
  }
  statistics = statistics::TakeLayers(statistics, wanted, "--layers " + text);
}

Run ReadRun(const ReportFlags& flags) {
  const LoadFlags& loads = flags.loads;
  Run run;
  if (!loads.statistics.path.empty()) {
    FolderRun folder = ReadFolder(loads.statistics, true, loads.num_experts);
    run = {.experts = std::move(folder.experts),
           .slots = std::move(folder.slots),
           .engine = formats::Engine::kTensorRtLlm,
           .ep_size_from = fmt::format("the rank files of {}", loads.statistics.path)};
    run.ep_size = run.experts.ep_size;
  } else if (!loads.loads.empty()) {
    const formats::Recording recording = ReadFlaggedRecording(loads);
    if (formats::HoldsShares(recording.loads))
      LogInfo("{}: holds shares; counts are of {} tokens a layer and batch", loads.loads,
              formats::kShareTokens);
    run = {.experts = formats::StatisticsOf(recording, recording.loads),
           .slots = std::nullopt,
           .engine = recording.engine,
           .ep_size = recording.ep_size,
           .ep_size_from = fmt::format("told by {}", loads.loads)};
    if (recording.slot_loads) run.slots = formats::StatisticsOf(recording, *recording.slot_loads);
  } else {
    run.experts = ReadFlaggedRouting(loads);
  }
  if (!loads.layers.empty()) {
    ChooseLayers(loads.layers, run.experts);
    if (run.slots) ChooseLayers(loads.layers, *run.slots);
  }
  return run;
}

// Other numbers of ranks that a placement of so many slots could be for.
std::string OtherRanks(int32_t num_slots, int32_t num_experts, int32_t chosen) {
  std::vector<int32_t> others;
  for (int32_t ranks = 2; ranks <= std::min(num_slots, num_experts); ++ranks)
    if (num_slots % ranks == 0 && ranks != chosen) others.push_back(ranks);
  if (others.empty()) return "";
  return fmt::to_string(fmt::join(others, ", "));
}

// On how many ranks the figures are, and where that is from. Errors: kInvalid when nobody tells, or
// one rank recorded.
RankChoice RanksOf(const ReportFlags& flags, const Run& run,
                   const statistics::EplbConfig& projection) {
  if (flags.ep_size > 0) return {flags.ep_size, "--ep_size"};
  if (const auto known = projection.KnownEpSize(); flags.projection && known)
    return {*known, fmt::format("told by {}", *flags.projection)};
  if (run.ep_size == 0)
    Throw(ErrorKind::kInvalid, "--ep_size is missing; {} does not tell how many ranks there were",
          flags.loads.Source());
  if (run.ep_size == 1 && !flags.per_expert)
    Throw(ErrorKind::kInvalid,
          "--ep_size is missing: one rank recorded ({}), and the figures compare ranks",
          run.ep_size_from);
  if (!flags.projection && !flags.per_expert && run.experts.num_experts % run.ep_size != 0 &&
      !run.slots)
    Throw(ErrorKind::kInvalid,
          "--ep_size is missing: {} ranks recorded ({}), which do not divide {} experts; is {} "
          "or another one missing?",
          run.ep_size, run.ep_size_from, run.experts.num_experts,
          statistics::RankFileName(run.ep_size));
  RankChoice choice{run.ep_size, run.ep_size_from};
  if (flags.projection) {
    const std::string others =
        OtherRanks(projection.num_slots, run.experts.num_experts, choice.ep_size);
    choice.from += fmt::format("; {} does not tell its ranks", *flags.projection);
    if (!others.empty())
      choice.from += fmt::format(", and its {} slots fit {}, too: --ep_size says which it is for",
                                 projection.num_slots, others);
  }
  return choice;
}

// Where the source does not tell its ranks, those of the figures stand for them: the largest number
// up to these that divides the experts, and for slots only where it divides them.
void AssumeRanks(int32_t ep_size, Run& run) {
  if (run.ep_size > 0) return;
  int32_t ranks = std::min(ep_size, run.experts.num_experts);
  while (run.experts.num_experts % ranks != 0) --ranks;
  run.experts.ep_size = ranks;
  if (run.slots && run.slots->num_experts % ep_size != 0) run.slots.reset();
  if (run.slots) run.experts.ep_size = run.slots->ep_size = ep_size;
}

// The last part of a path: pages are passed on, and others need not know the folders.
std::string NameOf(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path.substr(path.rfind('/') + 1);
}

std::vector<std::string> WithoutFolders(std::vector<std::string> notes, const ReportFlags& flags) {
  for (const std::string& path : {flags.loads.Source(), flags.projection.value_or("")})
    for (std::string& note : notes)
      for (size_t at = path.empty() ? std::string::npos : note.find(path); at != std::string::npos;
           at = note.find(path, at + 1))
        note.replace(at, path.size(), NameOf(path));
  return notes;
}

void CheckFlags(const ReportFlags& flags) {
  CheckLoadFlags(flags.loads);
  if (!flags.html.empty() && flags.per_expert)
    Throw(ErrorKind::kInvalid, "--html with --per_expert; the page shows ranks and experts both");
  if (flags.num_nodes > 1 && flags.loads.routing.empty())
    Throw(ErrorKind::kInvalid, "--nodes {} needs --routing: only tokens tell what leaves a node",
          flags.num_nodes);
  if (!flags.loads.routing.empty() && !flags.loads.layers.empty())
    Throw(ErrorKind::kInvalid, "--layers with --routing; all layers of a routing file are shown");
  if (flags.html == "-" && flags.json)
    Throw(ErrorKind::kInvalid, "--json and --html -: only one can have standard output");
}

// The placement of --projection_eplb_config_path, checked against what was recorded.
statistics::EplbConfig ReadProjection(const ReportFlags& flags, const Run& run) {
  if (!flags.projection) return {};
  formats::PlacementFile file = formats::ReadPlacementFile(*flags.projection);
  if (file.numbers_rows)
    file.config = formats::NumberedLike(std::move(file.config), run.experts.layers);
  return std::move(file.config);
}

// The slots as they were counted; null when another layout is asked about or none were.
const statistics::ExpertStatistics* ShownSlots(const ReportFlags& flags, const Run& run) {
  const bool is_shown = !flags.projection && !flags.per_expert &&
                        (flags.ep_size == 0 || flags.ep_size == run.ep_size || run.ep_size == 0);
  return is_shown && run.slots ? &*run.slots : nullptr;
}

std::string LayoutText(const ReportFlags& flags, const Run& run,
                       const statistics::EplbConfig& projection) {
  if (flags.projection)
    return fmt::format("projected on {} ({} slots), not measured", *flags.projection,
                       projection.num_slots);
  if (const auto* slots = ShownSlots(flags, run))
    return fmt::format("as measured: the {} slots that ran", slots->num_experts);
  return fmt::format("{} {} in order", run.experts.num_experts,
                     run.slots ? "experts (not the slots that ran)" : "experts");
}

void Report(const ReportFlags& flags) {
  CheckFlags(flags);
  CatchInterrupts();
  std::vector<FileUse> files = FilesOf(flags.loads);
  files.push_back(Reads("--projection_eplb_config_path", flags.projection.value_or("")));
  files.push_back(Writes("--html", flags.html));
  CheckFiles(files);
  if (!flags.html.empty()) CheckWritable(flags.html);
  Run run = ReadRun(flags);
  const statistics::EplbConfig projection = ReadProjection(flags, run);
  const ReportContext context{
      .engine = ChooseEngine(flags.engine, run.engine, flags.loads.Source()),
      .ranks = RanksOf(flags, run, projection),
      .layout = LayoutText(flags, run, projection)};
  if (context.ranks.ep_size % flags.num_nodes != 0)
    Throw(ErrorKind::kInvalid, "--nodes is {}; it must divide {} ranks", flags.num_nodes,
          context.ranks.ep_size);
  AssumeRanks(context.ranks.ep_size, run);
  const statistics::ReportOptions options{.ep_size = context.ranks.ep_size,
                                          .per_expert = flags.per_expert,
                                          .projection = flags.projection ? &projection : nullptr,
                                          .projection_source = flags.projection.value_or(""),
                                          .optimal_split = context.engine.SplitsByCounts()};
  if (flags.projection && !flags.per_expert)
    statistics::CheckEplbConfig(projection,
                                {.num_experts = run.experts.num_experts,
                                 .ep_size = options.ep_size,
                                 .layers = run.experts.layers,
                                 .extra_layers = statistics::LayersOf(projection)},
                                *flags.projection);
  const auto* const slots = ShownSlots(flags, run);
  const statistics::LoadReport report =
      statistics::MakeLoadReport(slots != nullptr ? *slots : run.experts, options);
  if (report.rows.empty())
    Throw(ErrorKind::kInvalid, "{}: no layer has any load in these iterations; nothing to report",
          flags.loads.Source());
  StopIfInterrupted();
  const std::vector<std::string> notes = Notes(report, context);
  if (!flags.html.empty()) {
    WriteFileWhole(flags.html,
                   statistics::FormatHtmlReport(
                       run.experts, {.source = NameOf(flags.loads.Source()),
                                     .ep_size = options.ep_size,
                                     .projection = options.projection,
                                     .projection_source = NameOf(options.projection_source),
                                     .slots = run.slots ? &*run.slots : nullptr,
                                     .notes = WithoutFolders(notes, flags)}));
    if (flags.html == "-") return;
  }
  for (const std::string& note : notes) LogInfo("{}", note);
  for (const std::string& note : EmptyNotes(report)) LogInfo("{}", note);
  const std::vector<LayerCrossing> crossings =
      CrossingsOf(flags.loads, {.ep_size = options.ep_size,
                                .num_nodes = flags.num_nodes,
                                .projection = flags.projection ? &projection : nullptr,
                                .projection_source = flags.projection.value_or("")});
  if (flags.json) {
    Json document = ReportJson(report, run.experts, context, flags.hot);
    if (!crossings.empty()) document["crossing"] = CrossingJson(crossings);
    WriteFileWhole("-", DumpJson(document, 2) + "\n");
    return;
  }
  std::string text;
  if (flags.loads.statistics.HasWindow())
    text = fmt::format("# iter_start {} iter_stop {}\n", run.experts.iter_start,
                       run.experts.iter_stop());
  WriteFileWhole("-", text + statistics::FormatLoadReport(report) +
                          HotText(run.experts, flags.hot) +
                          CrossingText(crossings, flags.num_nodes));
}

}  // namespace

void AddEplbReport(Command group) {
  const Command command = group.Subcommand(
      "report", "how unequal the recorded load was: per layer mean, std and imbalance ratio");
  ReportFlags& flags = command.Runs<ReportFlags>(Report);
  AddLoadFlags(command, flags.loads);
  AddTargetEngineFlags(command, flags.engine);
  command.Add("--per-expert", flags.per_expert,
              "figures over experts (slots of a projection) instead of ranks");
  command.Add("--projection-eplb-config-path", flags.projection,
              "report what the load would have been under this placement (EPLB YAML, or a file of "
              "vLLM or SGLang)");
  command.Add("--ep-size", flags.ep_size, "ranks to report for (default: those that recorded)")
      .Positive();
  command
      .Add("--hot", flags.hot, "also list so many of the busiest and idlest experts of each layer")
      .NonNegative();
  command
      .Add("--nodes", flags.num_nodes,
           "with --routing: nodes the ranks are spread over, for rows that leave their node")
      .Positive()
      .ShowDefault();
  command.Add("--html", flags.html,
              "also write one HTML page with heat map, load curve and before/after; - is "
              "stdout instead of the table");
  command.Add("--json", flags.json, "one JSON document instead of the table");
}

}  // namespace wideload::apps
