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
#include "formats/placement_file.h"
#include "interrupt.h"
#include "statistics/expert_ranking.h"
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
  const auto near = std::lower_bound(others.begin(), others.end(), chosen);
  const auto begin = near - std::min<int64_t>(2, near - others.begin());
  return fmt::format("{}",
                     fmt::join(begin, begin + std::min<int64_t>(4, others.end() - begin), ", "));
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

Json FiguresJson(const statistics::LoadFigures& figures) {
  return {{"mean", figures.mean},
          {"std", figures.std},
          {"imbalance_ratio", figures.imbalance_ratio},
          {"balancedness", figures.balancedness}};
}

Json PercentilesJson(const std::vector<double>& values) {
  if (values.empty()) return nullptr;
  return {{"p50", statistics::Percentile(values, 0.5)},
          {"p90", statistics::Percentile(values, 0.9)},
          {"p99", statistics::Percentile(values, 0.99)},
          {"max", statistics::Percentile(values, 1)}};
}

Json ExpertsJson(const std::vector<statistics::RankedExpert>& experts) {
  Json list = Json::array();
  for (const statistics::RankedExpert& expert : experts)
    list.push_back({{"expert", expert.expert}, {"load", expert.load}});
  return list;
}

std::vector<double> AllRatios(const statistics::LoadReport& report) {
  std::vector<double> all;
  for (const std::vector<double>& row : report.ratios)
    all.insert(all.end(), row.begin(), row.end());
  return all;
}

std::vector<double> LayerRatios(const statistics::LoadReport& report) {
  std::vector<double> all;
  for (const statistics::LoadFigures& row : report.rows) all.push_back(row.imbalance_ratio);
  return all;
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

struct Context {
  TargetEngine engine;
  RankChoice ranks;
  std::string layout;  // what the figures are of
};

Json ReportJson(const statistics::LoadReport& report, const Run& run, const Context& context,
                int32_t hot) {
  Json layers = Json::array();
  for (size_t l = 0; l < report.layers.size(); ++l) {
    Json row = FiguresJson(report.rows[l]);
    row["layer"] = report.layers[l];
    row["percentiles"] = PercentilesJson(report.ratios[l]);
    layers.push_back(std::move(row));
  }
  Json document{{"iter_start", run.experts.iter_start},
                {"iter_stop", run.experts.iter_stop()},
                {"ep_size", context.ranks.ep_size},
                {"ep_size_from", context.ranks.from},
                {"engine", context.engine.traits ? std::string(context.engine.traits->name) : ""},
                {"split", formats::SplitName(context.engine.split)},
                {"layout", context.layout},
                {"layers", layers},
                {"average", FiguresJson(report.average)},
                {"percentiles", PercentilesJson(AllRatios(report))},
                {"percentiles_over_layers", PercentilesJson(LayerRatios(report))},
                {"layers_without_load", report.layers_without_load},
                {"empty_iterations", report.empty_iterations},
                {"iterations_with_empty_layers", report.partly_empty}};
  if (hot == 0) return document;
  document["experts"] = Json::array();
  for (const statistics::LayerRanking& layer : statistics::RankExperts(run.experts, hot))
    document["experts"].push_back({{"layer", layer.layer},
                                   {"hot", ExpertsJson(layer.hot)},
                                   {"cold", ExpertsJson(layer.cold)},
                                   {"hot_share", layer.top_share},
                                   {"never_chosen", layer.never_chosen}});
  return document;
}

std::string ExpertsText(const std::vector<statistics::RankedExpert>& experts) {
  std::string text;
  for (const statistics::RankedExpert& expert : experts)
    text += fmt::format(" {}:{:.2f}", expert.expert, expert.load);
  return text;
}

std::string HotText(const Run& run, int32_t hot) {
  if (hot == 0) return "";
  std::string text = "Hot and cold experts (expert:load relative to the layer's mean):\n";
  for (const statistics::LayerRanking& layer : statistics::RankExperts(run.experts, hot))
    text += fmt::format("{}  hot{} ({:.1f} % of tokens)  cold{}  never chosen {}\n", layer.layer,
                        ExpertsText(layer.hot), 100 * layer.top_share, ExpertsText(layer.cold),
                        layer.never_chosen);
  return text;
}

// What the table does not say: for whom, on what ranks, and the figures beside the ratio.
std::vector<std::string> Notes(const statistics::LoadReport& report, const Context& context) {
  std::vector<std::string> notes = {
      fmt::format("{}; {} ranks: {}", context.layout, context.ranks.ep_size, context.ranks.from),
      context.engine.Sentence()};
  if (report.rows.empty()) return notes;
  const std::vector<double> all = AllRatios(report);
  const std::vector<double> layers = LayerRatios(report);
  notes.push_back(fmt::format(
      "balancedness (mean / max) {:.3f}; imbalance ratio over iterations and layers: median "
      "{:.3f}, "
      "90th percentile {:.3f}, 99th {:.3f}, max {:.3f}; over layers: median {:.3f}, max {:.3f}",
      report.average.balancedness, statistics::Percentile(all, 0.5),
      statistics::Percentile(all, 0.9), statistics::Percentile(all, 0.99),
      statistics::Percentile(all, 1), statistics::Percentile(layers, 0.5),
      statistics::Percentile(layers, 1)));
  return notes;
}

std::vector<std::string> EmptyNotes(const statistics::LoadReport& report) {
  std::vector<std::string> notes;
  if (!report.layers_without_load.empty())
    notes.push_back(fmt::format("layers without any load are left out: {}",
                                fmt::join(report.layers_without_load, ", ")));
  if (report.empty_iterations > 0)
    notes.push_back(
        fmt::format("iterations without any load, left out: {}", report.empty_iterations));
  if (report.partly_empty > 0)
    notes.push_back(fmt::format(
        "iterations in which some layers have no load, and which count for the others only: {}",
        report.partly_empty));
  return notes;
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
  const Context context{.engine = ChooseEngine(flags.engine, run.engine, flags.loads.Source()),
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
    Json document = ReportJson(report, run, context, flags.hot);
    if (!crossings.empty()) document["crossing"] = CrossingJson(crossings);
    WriteFileWhole("-", DumpJson(document, 2) + "\n");
    return;
  }
  std::string text;
  if (flags.loads.statistics.HasWindow())
    text = fmt::format("# iter_start {} iter_stop {}\n", run.experts.iter_start,
                       run.experts.iter_stop());
  WriteFileWhole("-", text + statistics::FormatLoadReport(report) + HotText(run, flags.hot) +
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
