// `wideload eplb convert`: recorded loads and placements between the formats of several engines.
#include <cmath>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "eplb_commands.h"
#include "interrupt.h"
#include "statistics/eplb_yaml.h"
#include "statistics/statistics_folder.h"
#include "tensor/safetensors.h"

namespace wideload::apps {
namespace {

struct ConvertFlags {
  std::string input;
  std::string output;
  StatisticsFlags statistics;
  int32_t num_experts = 0;
  int64_t tokens_per_iteration = 0;
  bool replace = false;
  bool json = false;
};

enum class Format { kFolder, kYaml, kCsv, kJson, kTensor, kRouting };

bool IsYaml(const std::string& path) { return path.ends_with(".yaml") || path.ends_with(".yml"); }

Format InputFormat(const std::string& path) {
  if (IsDirectory(path)) return Format::kFolder;
  if (IsYaml(path)) return Format::kYaml;
  if (path.ends_with(".csv")) return Format::kCsv;
  if (path.ends_with(".json")) return Format::kJson;
  if (path.ends_with(".safetensors")) return Format::kRouting;
  if (path.find(".safetensors:") != std::string::npos) return Format::kTensor;
  Throw(ErrorKind::kInvalid,
        "{}: unknown input; allowed: a statistics folder, FILE.yaml, FILE.csv, FILE.json, "
        "FILE.safetensors:TENSOR (loads), FILE.safetensors (routing)",
        path);
}

Format OutputFormat(const std::string& path) {
  if (path == "-")
    Throw(ErrorKind::kInvalid,
          "output is -: standard output has no ending that tells a format; use a file name");
  if (IsYaml(path)) return Format::kYaml;
  if (path.ends_with(".csv")) return Format::kCsv;
  if (path.ends_with(".json")) return Format::kJson;
  if (path.ends_with(".safetensors")) return Format::kTensor;
  for (const char* ending : {".txt", ".tsv", ".npy", ".npz", ".pt", ".pth", ".bin", ".html"})
    if (path.ends_with(ending) && !IsDirectory(path))
      Throw(ErrorKind::kInvalid,
            "{}: unknown output; allowed: FILE.yaml, FILE.csv, FILE.json, FILE.safetensors, a "
            "statistics folder",
            path);
  return Format::kFolder;
}

// Exactly one of the two is set: a file tells loads or placements (SGLang's may tell both, then
// what the output needs is taken).
struct Content {
  std::optional<statistics::LoadTable> loads = {};
  std::optional<statistics::EplbConfig> placements = {};
};

statistics::EplbConfig PlacementsOf(const statistics::SglangFile& file) {
  statistics::EplbConfig config{.num_slots = static_cast<int32_t>(file.slot_expert[0].size())};
  for (size_t l = 0; l < file.slot_expert.size(); ++l)
    config.layers[static_cast<int32_t>(l)] = file.slot_expert[l];
  return config;
}

Content ReadContent(const ConvertFlags& flags) {
  switch (InputFormat(flags.input)) {
    case Format::kFolder: {
      StatisticsFlags folder = flags.statistics;
      folder.path = flags.input;
      return {.loads = statistics::StatisticsLoads(ReadFlaggedStatistics(folder, true))};
    }
    case Format::kYaml:
      return {.placements = statistics::ReadEplbYaml(flags.input)};
    case Format::kJson: {
      const statistics::SglangFile file =
          statistics::ParseSglangJson(ReadFile(flags.input), flags.input);
      Content content{.loads = file.loads};
      if (!file.slot_expert.empty()) {
        // Written and read back, so that it passes the checks of a placement file.
        content.placements =
            statistics::ParseEplbYaml(statistics::FormatEplbYaml(PlacementsOf(file)), flags.input);
      }
      return content;
    }
    case Format::kRouting:
      return {.loads = statistics::RoutingLoads(
                  statistics::ReadRouting(flags.input, flags.num_experts))};
    default:
      return {.loads = statistics::ReadLoads(flags.input)};
  }
}

[[noreturn]] void RefusePair(const ConvertFlags& flags, const char* lacks) {
  Throw(ErrorKind::kInvalid, "{} to {}: {} holds no {}", flags.input, flags.output, flags.input,
        lacks);
}

const statistics::LoadTable& LoadsIn(const ConvertFlags& flags, const Content& content) {
  if (!content.loads) RefusePair(flags, "loads");
  return *content.loads;
}

// Row i is layer i; layers that are not there are rows of zeros. I64 when all are integers.
void WriteLoadTensor(const std::string& path, const statistics::LoadTable& table) {
  constexpr double kExact = 9007199254740992;  // 2^53
  const int64_t num_layers = table.layers.rbegin()->first + 1;
  const auto num_experts = static_cast<size_t>(table.num_experts);
  std::vector<double> values(static_cast<size_t>(num_layers) * num_experts, 0);
  for (const auto& [layer, loads] : table.layers)
    std::copy(loads.begin(), loads.end(),
              values.begin() + static_cast<int64_t>(static_cast<size_t>(layer) * num_experts));
  const bool integers = std::all_of(values.begin(), values.end(),
                                    [&](double x) { return x == std::floor(x) && x < kExact; });
  const std::vector<int64_t> counts(values.begin(), values.end());
  const Shape shape{num_layers, table.num_experts};
  const TensorView view = integers ? TensorView(DType::kI64, shape, counts.data())
                                   : TensorView(DType::kF64, shape, values.data());
  WriteSafetensors(path, std::vector<std::pair<std::string, TensorView>>{{"load", view}});
}

// What was written.
struct Written {
  size_t num_layers = 0;
  int32_t num_experts = 0;
  const char* holds = "loads";
};

Written WriteFolder(const ConvertFlags& flags) {
  const auto existing =
      flags.replace ? statistics::ExistingFolder::kReplace : statistics::ExistingFolder::kRefuse;
  statistics::CheckStatisticsFolder(flags.output, existing);
  const Format input = InputFormat(flags.input);
  if (input != Format::kFolder && input != Format::kRouting) RefusePair(flags, "iterations");
  if (input == Format::kRouting && flags.tokens_per_iteration == 0)
    Throw(ErrorKind::kInvalid,
          "--tokens_per_iteration is missing; a routing file has no iterations of its own");
  StatisticsFlags folder = flags.statistics;
  folder.path = flags.input;
  const statistics::ExpertStatistics recorded =
      input == Format::kFolder
          ? ReadFlaggedStatistics(folder, false)
          : statistics::CutIntoIterations(statistics::ReadRouting(flags.input, flags.num_experts),
                                          flags.tokens_per_iteration);
  StopIfInterrupted();
  statistics::WriteStatistics(flags.output, recorded, existing);
  return {.num_layers = recorded.num_layers(),
          .num_experts = recorded.num_experts,
          .holds = "statistics"};
}

Written WriteTable(const ConvertFlags& flags, Format output, const statistics::LoadTable& table) {
  if (output == Format::kJson)
    WriteFileWhole(flags.output, statistics::FormatSglangCounts(table));
  else if (output == Format::kCsv)
    WriteFileWhole(flags.output, statistics::FormatLoadCsv(table));
  else
    WriteLoadTensor(flags.output, table);
  return {.num_layers = table.layers.size(), .num_experts = table.num_experts};
}

Written WriteFile(const ConvertFlags& flags, Format output) {
  const Content content = ReadContent(flags);
  StopIfInterrupted();
  const bool as_placement =
      output == Format::kYaml || (output == Format::kJson && content.placements && !content.loads);
  if (!as_placement) return WriteTable(flags, output, LoadsIn(flags, content));
  if (!content.placements) RefusePair(flags, "placement");
  if (output == Format::kYaml)
    statistics::WriteEplbYaml(flags.output, *content.placements);
  else
    WriteFileWhole(flags.output, statistics::FormatSglangPlacement(*content.placements));
  return {.num_layers = content.placements->layers.size(),
          .num_experts = content.placements->num_experts(),
          .holds = "placement"};
}

void CheckFlagsFit(const ConvertFlags& flags) {
  const Format input = InputFormat(flags.input);
  if (flags.statistics.HasWindow() && input != Format::kFolder)
    Throw(ErrorKind::kInvalid,
          "--iter_start, --iter_stop and --eplb_config need a statistics folder as input; it is {}",
          flags.input);
  if (flags.num_experts != 0 && input != Format::kRouting)
    Throw(ErrorKind::kInvalid, "--num_experts needs a routing file as input; it is {}",
          flags.input);
  const Format output = OutputFormat(flags.output);
  if (flags.tokens_per_iteration != 0 && (input != Format::kRouting || output != Format::kFolder))
    Throw(ErrorKind::kInvalid,
          "--tokens_per_iteration needs a routing file as input and a folder as output");
  if (flags.replace && output != Format::kFolder)
    Throw(ErrorKind::kInvalid, "--replace needs a folder as output; it is {}", flags.output);
}

void Convert(const ConvertFlags& flags) {
  CheckFlagsFit(flags);
  const Format output = OutputFormat(flags.output);
  CatchInterrupts();
  std::vector<FileUse> files = FilesOf(flags.statistics);
  files.push_back(Reads("input", flags.input));
  files.push_back(output == Format::kFolder ? WritesFolder("output", flags.output)
                                            : Writes("output", flags.output));
  CheckFiles(files);
  if (output != Format::kFolder) CheckWritable(flags.output);
  const Written written = output == Format::kFolder ? WriteFolder(flags) : WriteFile(flags, output);
  LogInfo("wrote {}", flags.output);
  if (!flags.json) return;
  const Json document{{"input", flags.input},
                      {"output", flags.output},
                      {"holds", written.holds},
                      {"num_layers", written.num_layers},
                      {"num_experts", written.num_experts}};
  WriteFileWhole("-", DumpJson(document, 2) + "\n");
}

}  // namespace

void AddEplbConvert(Command group) {
  const Command command = group.Subcommand(
      "convert", "convert loads and placements between the formats of several engines");
  ConvertFlags& flags = command.Runs<ConvertFlags>(Convert);
  command
      .Add("input", flags.input,
           "statistics folder, EPLB FILE.yaml, loads FILE.csv or FILE.safetensors:TENSOR, "
           "routing FILE.safetensors, SGLang FILE.json")
      .Required();
  command
      .Add("output", flags.output,
           "FILE.yaml (placement), FILE.csv, FILE.safetensors (tensor load), FILE.json "
           "(SGLang), else a statistics folder")
      .Required();
  command.Add("--iter-start", flags.statistics.iter_start,
              "first iteration of a statistics folder to use");
  command.Add("--iter-stop", flags.statistics.iter_stop, "one past the last iteration to use");
  command.Add("--eplb-config", flags.statistics.eplb_config,
              "EPLB YAML the engine ran with, if its folder counts slots");
  command
      .Add("--num-experts", flags.num_experts,
           "experts of a routing file (default: one more than the largest id)")
      .Positive();
  command
      .Add("--tokens-per-iteration", flags.tokens_per_iteration,
           "cut a routing file into iterations of so many tokens for a statistics folder")
      .Positive();
  command.Add("--replace", flags.replace, "replace the statistics that the output folder holds");
  command.Add("--json", flags.json, "one JSON document that says what was written");
}

}  // namespace wideload::apps
