// `wideload eplb report`: the text of TensorRT-LLM's report_load_statistics.py.

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "eplb_commands.h"
#include "interrupt.h"
#include "statistics/html_report.h"
#include "statistics/report.h"

namespace wideload::apps {
namespace {

struct ReportFlags {
  StatisticsFlags statistics;
  bool per_expert = false;
  std::optional<std::string> projection;
  int32_t ep_size = 0;
  std::string html;
  bool json = false;
};

Json FiguresJson(const statistics::LoadFigures& figures) {
  return {
      {"mean", figures.mean}, {"std", figures.std}, {"imbalance_ratio", figures.imbalance_ratio}};
}

Json ReportJson(const statistics::LoadReport& report, const statistics::ExpertStatistics& recorded,
                int32_t ep_size) {
  Json layers = Json::array();
  for (size_t l = 0; l < report.layers.size(); ++l) {
    Json row = FiguresJson(report.rows[l]);
    row["layer"] = report.layers[l];
    layers.push_back(std::move(row));
  }
  return {{"iter_start", recorded.iter_start},
          {"iter_stop", recorded.iter_stop()},
          {"ep_size", ep_size},
          {"layers", layers},
          {"average", FiguresJson(report.average)}};
}

// The last part of a path: pages are passed on, and others need not know the folders.
std::string NameOf(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path.substr(path.rfind('/') + 1);
}

void Report(const ReportFlags& flags) {
  if (!flags.html.empty() && flags.per_expert)
    Throw(ErrorKind::kInvalid, "--html with --per_expert; the page shows ranks and experts both");
  if (flags.html == "-" && flags.json)
    Throw(ErrorKind::kInvalid, "--json and --html -: only one can have standard output");
  CatchInterrupts();
  std::vector<FileUse> files = FilesOf(flags.statistics);
  files.push_back(Reads("--projection_eplb_config_path", flags.projection.value_or("")));
  files.push_back(Writes("--html", flags.html));
  CheckFiles(files);
  if (!flags.html.empty()) CheckWritable(flags.html);
  const statistics::ExpertStatistics recorded = ReadFlaggedStatistics(flags.statistics, true);
  statistics::ReportOptions options{.ep_size = flags.ep_size, .per_expert = flags.per_expert};
  statistics::EplbConfig projection;
  if (flags.projection) {
    options.projection_source = *flags.projection;
    projection = statistics::ReadEplbYaml(*flags.projection);
    options.projection = &projection;
    if (options.ep_size == 0) options.ep_size = projection.ep_size.value_or(recorded.ep_size);
    if (!flags.per_expert)
      statistics::CheckEplbConfig(projection,
                                  {.num_experts = recorded.num_experts,
                                   .ep_size = options.ep_size,
                                   .layers = recorded.layers},
                                  *flags.projection);
  }
  if (options.ep_size == 0) options.ep_size = recorded.ep_size;
  const statistics::LoadReport report = statistics::MakeLoadReport(recorded, options);
  StopIfInterrupted();
  if (!flags.html.empty()) {
    WriteFileWhole(flags.html,
                   statistics::FormatHtmlReport(
                       recorded, {.source = NameOf(flags.statistics.path),
                                  .ep_size = options.ep_size,
                                  .projection = options.projection,
                                  .projection_source = NameOf(options.projection_source)}));
    if (flags.html == "-") return;
  }
  if (flags.json) {
    WriteFileWhole("-", DumpJson(ReportJson(report, recorded, options.ep_size), 2) + "\n");
    return;
  }
  std::string text;
  if (flags.statistics.iter_start || flags.statistics.iter_stop)
    text = fmt::format("# iter_start {} iter_stop {}\n", recorded.iter_start, recorded.iter_stop());
  WriteFileWhole("-", text + statistics::FormatLoadReport(report));
}

}  // namespace

void AddEplbReport(Command group) {
  const Command command = group.Subcommand(
      "report", "how unequal the recorded load was: per layer mean, std and imbalance ratio");
  ReportFlags& flags = command.Runs<ReportFlags>(Report);
  AddStatisticsFlags(command, flags.statistics).Required();
  command.Add("--per-expert", flags.per_expert,
              "figures over experts (slots of a projection) instead of ranks");
  command.Add("--projection-eplb-config-path", flags.projection,
              "report what the load would have been under this EPLB YAML");
  command.Add("--ep-size", flags.ep_size, "ranks to report for (default: those that recorded)")
      .Positive();
  command.Add("--html", flags.html,
              "also write one HTML page with heat map, load curve and before/after; - is "
              "stdout instead of the table");
  command.Add("--json", flags.json, "one JSON document instead of the table");
}

}  // namespace wideload::apps
