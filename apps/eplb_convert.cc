// `wideload eplb convert`: recorded loads and placements between the formats of several engines.
#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "eplb_commands.h"
#include "eplb_convert_kinds.h"
#include "eplb_convert_tables.h"
#include "eplb_engine.h"
#include "formats/array_file.h"
#include "formats/npy.h"
#include "formats/placement_file.h"
#include "formats/read_recording.h"
#include "formats/sglang_dump.h"
#include "formats/vllm_files.h"
#include "interrupt.h"
#include "statistics/statistics_folder.h"
#include "tensor/safetensors.h"

namespace wideload::apps {
namespace {

struct ConvertFlags {
  std::string input;
  std::string output;
  LoadFlags loads;  // what the input is read with
  std::string engine;
  int32_t ep_size = 0;
  bool keep_steps = false;
  bool replace = false;
  bool json = false;
};

// What was written.
struct Written {
  size_t num_layers = 0;
  int32_t num_experts = 0;
  const char* holds = "loads";
};

[[noreturn]] void RefusePair(const ConvertFlags& flags, const std::string& lacks) {
  Throw(ErrorKind::kInvalid, "{} to {}: {} holds no {}", flags.input, flags.output, flags.input,
        lacks);
}

// Loads ----------------------------------------------------------------------------------------

formats::Recording ReadLoads(const ConvertFlags& flags, Input input) {
  LoadFlags loads = flags.loads;
  if (input == Input::kFolder) {
    loads.statistics.path = flags.input;
    return RecordingOf(ReadFolder(loads.statistics, true, loads.num_experts).experts);
  }
  if (input == Input::kRouting) {
    formats::Recording recording;
    recording.loads =
        statistics::RoutingLoads(statistics::ReadRouting(flags.input, loads.num_experts));
    return recording;
  }
  if (input == Input::kYaml) RefusePair(flags, "loads");
  loads.loads = flags.input;
  return ReadFlaggedRecording(loads);
}

// Numbers the layers as --layers says, or takes some.
template <class T>
void ChooseLayers(const std::string& text, std::map<int32_t, T>& layers) {
  if (text.empty() || layers.empty()) return;
  const std::vector<int32_t> wanted = ParseLayers(text);
  const bool renumbers = wanted.size() == layers.size();
  std::map<int32_t, T> chosen;
  auto next = layers.begin();
  for (const int32_t layer : wanted) {
    const auto found = renumbers ? next++ : layers.find(layer);
    if (found == layers.end())
      Throw(ErrorKind::kInvalid,
            "--layers {} names layer {}, which the input lacks; allowed: some of its layers {} to "
            "{}, or new numbers for all {} of them",
            text, layer, layers.begin()->first, layers.rbegin()->first, layers.size());
    chosen[layer] = std::move(found->second);
  }
  layers = std::move(chosen);
}

Written WriteLoads(const ConvertFlags& flags, Output output, const formats::Recording& recording) {
  const statistics::LoadTable& table = recording.loads;
  const bool keeps = output == Output::kJsonl || (flags.keep_steps && output != Output::kCsv);
  if (!table.batches.empty() && !keeps)
    LogInfo("{}: {} steps are summed ({} keeps them)", flags.output, recording.num_batches(),
            output == Output::kCsv ? "a folder, .jsonl, or another ending with --keep_steps"
                                   : "--keep_steps");
  const int32_t ep_size = std::max(1, flags.ep_size > 0 ? flags.ep_size : recording.ep_size);
  switch (output) {
    case Output::kJson:
      WriteFileWhole(flags.output, formats::FormatSglangCounts(table, keeps));
      break;
    case Output::kJsonl:
      WriteFileWhole(flags.output, formats::FormatVllmStatistics(table, ep_size));
      break;
    case Output::kCsv:
      WriteFileWhole(flags.output, statistics::FormatLoadCsv(table));
      break;
    case Output::kNpy:
      WriteFileWhole(flags.output, formats::FormatNpy(ArrayOf(table, keeps)));
      break;
    default:
      WriteTensor(flags.output, ArrayOf(table, keeps), table);
  }
  return {.num_layers = table.layers.size(), .num_experts = table.num_experts};
}

// A folder keeps ranks apart where the input does, and iterations always.
statistics::ExpertStatistics StatisticsFor(const ConvertFlags& flags, Input input) {
  LoadFlags loads = flags.loads;
  if (input == Input::kFolder) {
    loads.statistics.path = flags.input;
    return ReadFolder(loads.statistics, false, loads.num_experts).experts;
  }
  if (input == Input::kRouting) {
    if (loads.tokens_per_iteration == 0)
      Throw(ErrorKind::kInvalid,
            "--tokens_per_iteration is missing; a routing file has no iterations of its own");
    loads.routing = flags.input;
    return ReadFlaggedRouting(loads);
  }
  formats::Recording recording = ReadLoads(flags, input);
  ChooseLayers(flags.loads.layers, recording.loads.layers);
  ChooseLayers(flags.loads.layers, recording.loads.batches);
  statistics::ExpertStatistics result = formats::StatisticsOf(recording, recording.loads);
  result.ep_size = 1;
  LogInfo("{}: {}, written as one rank's: reports of the folder need --ep_size", flags.output,
          recording.loads.batches.empty()
              ? "a table without steps becomes iteration 0"
              : fmt::format("{} steps become iterations 0 to {}", result.num_iterations,
                            result.num_iterations - 1));
  if (recording.top_k == 0)
    LogInfo("{}: {} does not tell num_experts_per_token; 1 is written", flags.output, flags.input);
  return result;
}

Written WriteFolder(const ConvertFlags& flags, Input input) {
  const auto existing =
      flags.replace ? statistics::ExistingFolder::kReplace : statistics::ExistingFolder::kRefuse;
  statistics::CheckStatisticsFolder(flags.output, existing);
  const statistics::ExpertStatistics recorded = StatisticsFor(flags, input);
  StopIfInterrupted();
  statistics::WriteStatistics(flags.output, recorded, existing);
  return {.num_layers = recorded.num_layers(),
          .num_experts = recorded.num_experts,
          .holds = "statistics"};
}

// Placements -----------------------------------------------------------------------------------

// A file of num_slots alone has its slots contiguous in every layer; other formats list them.
void ListContiguous(const ConvertFlags& flags, int32_t ep_size, statistics::EplbConfig& config) {
  const int32_t num_experts = flags.loads.num_experts;
  if (flags.loads.layers.empty() || num_experts == 0 || ep_size == 0)
    Throw(ErrorKind::kInvalid,
          "{} holds no layers: all slots are contiguous; --layers, --num_experts and --ep_size say "
          "which layers to list, of how many experts and on how many ranks",
          flags.input);
  eplb::ValidateSizes(num_experts, config.num_slots, ep_size, flags.input);
  for (const int32_t layer : ParseLayers(flags.loads.layers))
    config.SetLayer(layer, eplb::ContiguousPlacement(num_experts, config.num_slots, ep_size));
}

Written WritePlacement(const ConvertFlags& flags, Output output) {
  formats::PlacementFile file = formats::ReadPlacementFile(flags.input);
  statistics::EplbConfig& config = file.config;
  if (flags.loads.num_experts != 0 && !config.layers.empty())
    Throw(ErrorKind::kInvalid,
          "--num_experts needs a routing file, or a placement without layers, as input; it is {}",
          flags.input);
  ChooseLayers(flags.loads.layers, config.layers);
  if (file.numbers_rows && flags.loads.layers.empty() && output == Output::kYaml)
    LogInfo("{}: rows of {} are layers 0 to {}; --layers says what the model calls them",
            flags.output, flags.input, config.layers.rbegin()->first);
  const int32_t ep_size = flags.ep_size > 0 ? flags.ep_size : config.KnownEpSize().value_or(0);
  if (config.layers.empty() && (output != Output::kYaml || flags.loads.num_experts != 0))
    ListContiguous(flags, ep_size, config);
  if (output == Output::kYaml) {
    if (ep_size > 0) config.planned_ep_size = ep_size;
    statistics::WriteEplbYaml(flags.output, config);
  } else if (output == Output::kJsonl) {
    if (config.layers.begin()->first != 0)
      LogInfo("{}: layers {} to {} are numbered from 0, as vLLM counts its MoE layers",
              flags.output, config.layers.begin()->first, config.layers.rbegin()->first);
    WriteFileWhole(flags.output, formats::FormatVllmMapping(config));
  } else if (output == Output::kNpy) {
    formats::NumberArray array{.shape = {std::ssize(config.layers), config.num_slots},
                               .values = {}};
    for (const auto& [layer, slots] : config.layers)
      array.values.insert(array.values.end(), slots.begin(), slots.end());
    WriteFileWhole(flags.output, formats::FormatNpy(array));
  } else if (flags.engine.starts_with("vllm")) {
    if (ep_size == 0)
      Throw(ErrorKind::kInvalid,
            "--ep_size is missing: an expert_map lists the slots of each device, and {} does not "
            "tell how many there are",
            flags.input);
    WriteFileWhole(flags.output, formats::FormatAscendMap(config, ep_size));
  } else {
    LogInfo("{}: written for SGLang; --engine vllm_ascend writes an expert_map", flags.output);
    WriteFileWhole(flags.output, formats::FormatSglangPlacement(config));
  }
  return {.num_layers = config.layers.size(),
          .num_experts = config.num_experts(),
          .holds = "placement"};
}

// Loads where the input has some, but for a YAML file, and for .npy and JSON of what has none.
Written WriteFile(const ConvertFlags& flags, Input input, Output output) {
  const bool can_be_placement = input == Input::kYaml || input == Input::kEngineFile;
  if (output == Output::kYaml) {
    if (!can_be_placement || flags.input.ends_with(".csv"))
      RefusePair(flags, "placement; wideload eplb plan makes one of loads");
    return WritePlacement(flags, output);
  }
  if (input == Input::kYaml) {
    if (output == Output::kCsv || output == Output::kTensor) RefusePair(flags, "loads");
    return WritePlacement(flags, output);
  }
  if (can_be_placement && formats::HoldsOnlyPlacement(flags.input)) {
    if (output == Output::kCsv || output == Output::kTensor) RefusePair(flags, "loads");
    return WritePlacement(flags, output);
  }
  formats::Recording recording = ReadLoads(flags, input);
  ChooseLayers(flags.loads.layers, recording.loads.layers);
  ChooseLayers(flags.loads.layers, recording.loads.batches);
  StopIfInterrupted();
  return WriteLoads(flags, output, recording);
}

void CheckFlagsFit(const ConvertFlags& flags, Input input, Output output) {
  if (!flags.engine.empty()) formats::FindEngine(flags.engine, "--engine");
  const LoadFlags& loads = flags.loads;
  if (loads.statistics.HasWindow() && input != Input::kFolder)
    Throw(ErrorKind::kInvalid,
          "--iter_start and --iter_stop need a statistics folder as input; it is {}", flags.input);
  if (loads.statistics.eplb_config && (input == Input::kRouting || input == Input::kYaml))
    Throw(ErrorKind::kInvalid, "--eplb_config needs loads per slot as input; it is {}",
          flags.input);
  if (loads.num_experts != 0 && input != Input::kRouting && input != Input::kYaml &&
      !loads.statistics.eplb_config)
    Throw(ErrorKind::kInvalid, "--num_experts needs a routing file as input; it is {}",
          flags.input);
  if (loads.tokens_per_iteration != 0 && (input != Input::kRouting || output != Output::kFolder))
    Throw(ErrorKind::kInvalid,
          "--tokens_per_iteration needs a routing file as input and a folder as output");
  if (flags.replace && output != Output::kFolder)
    Throw(ErrorKind::kInvalid, "--replace needs a folder as output; it is {}", flags.output);
  if (!loads.layers.empty() && output == Output::kFolder && input != Input::kEngineFile)
    Throw(ErrorKind::kInvalid, "--layers is for a file as input or output");
}

void Convert(const ConvertFlags& flags) {
  const Output output = OutputOf(flags.output);
  const Input input = InputOf(flags.input);
  CheckFlagsFit(flags, input, output);
  CatchInterrupts();
  std::vector<FileUse> files = FilesOf(flags.loads);
  files.push_back(Reads("input", flags.input));
  files.push_back(output == Output::kFolder ? WritesFolder("output", flags.output)
                                            : Writes("output", flags.output));
  CheckFiles(files);
  if (output != Output::kFolder) CheckWritable(flags.output);
  const Written written =
      output == Output::kFolder ? WriteFolder(flags, input) : WriteFile(flags, input, output);
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
           "statistics folder, EPLB FILE.yaml, vLLM's FILE.jsonl, vLLM on Ascend's expert_map "
           "FILE.json, SGLang's FILE.json, FILE.pt or folder of dumps, FILE.csv, FILE.npy, "
           "FILE.npz:ARRAY, FILE.safetensors:TENSOR, routing FILE.safetensors")
      .Required();
  command
      .Add("output", flags.output,
           "FILE.yaml (placement), FILE.jsonl (vLLM), FILE.json (SGLang; with --engine "
           "vllm_ascend an expert_map), FILE.csv, FILE.npy, FILE.safetensors (tensor load), else a "
           "statistics folder")
      .Required();
  command.Add("--engine", flags.engine,
              "for whom a placement FILE.json is written: sglang (default) or vllm_ascend");
  command.Add("--layers", flags.loads.layers,
              "what the model calls the layers of the input, like 3-60; or, when fewer than it "
              "has, those to take");
  command
      .Add("--ep-size", flags.ep_size,
           "ranks, where the output lists them (default: those of the input)")
      .Positive();
  command.Add("--keep-steps", flags.keep_steps,
              "write [steps, layers, experts] where the output can hold it");
  command.Add("--axes", flags.loads.axes,
              "what a three-dimensional array is: steps,layers,experts or layers,ranks,slots");
  command.Add("--phase", flags.loads.phase,
              "batches to take: prefill, decode, mixed (default: all)");
  command.Add("--iter-start", flags.loads.statistics.iter_start,
              "first iteration of a statistics folder to use");
  command.Add("--iter-stop", flags.loads.statistics.iter_stop,
              "one past the last iteration to use");
  command.Add("--eplb-config", flags.loads.statistics.eplb_config,
              "placement file the engine ran with, if the input counts slots");
  command
      .Add("--num-experts", flags.loads.num_experts,
           "experts of a routing file (default: one more than the largest id), or of a placement "
           "without layers")
      .Positive();
  command
      .Add("--tokens-per-iteration", flags.loads.tokens_per_iteration,
           "cut a routing file into iterations of so many tokens for a statistics folder")
      .Positive();
  command.Add("--replace", flags.replace, "replace the statistics that the output folder holds");
  command.Add("--json", flags.json, "one JSON document that says what was written");
}

}  // namespace wideload::apps
