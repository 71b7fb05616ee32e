// Where the eplb commands take their loads from.
#include "base/error.h"
#include "base/log.h"
#include "eplb_commands.h"
#include "formats/placement_file.h"
#include "formats/read_recording.h"
#include "statistics/statistics_folder.h"

namespace wideload::apps {

Option AddStatisticsFlags(Command command, StatisticsFlags& flags) {
  command.Add("--iter-start", flags.iter_start,
              "first iteration of the folder to use (default: the first recorded)");
  command.Add("--iter-stop", flags.iter_stop,
              "one past the last iteration to use (default: all recorded)");
  command.Add("--eplb-config", flags.eplb_config,
              "placement file the engine ran with, if it counted slots instead of experts");
  return command.Add("--expert-statistic-path", flags.path,
                     "folder with meta_info.json and rank*.safetensors");
}

namespace {

// The placement of every layer of the statistics, slot by slot.
statistics::EplbConfig LayoutOf(const StatisticsFlags& flags,
                                const statistics::ExpertStatistics& counted, int32_t num_experts) {
  const std::string& path = *flags.eplb_config;
  statistics::EplbConfig config =
      formats::NumberedLike(formats::ReadPlacementFile(path).config, counted.layers);
  if (!config.layers.empty()) return config;
  if (num_experts == 0)
    Throw(ErrorKind::kInvalid,
          "{}: has no layers, so slots are contiguous; --num_experts must say of how many experts",
          path);
  const statistics::EplbTarget target{.num_experts = num_experts, .ep_size = counted.ep_size};
  statistics::EplbConfig filled = config;
  for (const int32_t layer : counted.layers)
    filled.SetLayer(layer, statistics::LayerPlacement(config, layer, target, path));
  return filled;
}

}  // namespace

FolderRun ReadFolder(const StatisticsFlags& flags, bool sum_ranks, int32_t num_experts) {
  statistics::ExpertStatistics counted = statistics::ReadStatistics(
      flags.path,
      {.iter_start = flags.iter_start, .iter_stop = flags.iter_stop, .sum_ranks = sum_ranks});
  if (counted.ranks_per_layer > 0)
    LogInfo(
        "{}: pipeline stages recorded layers of their own: {} rank files, {} ranks a layer; "
        "--ep_size {} is for one stage (TensorRT-LLM's tools take {})",
        flags.path, counted.ep_size, counted.ranks_per_layer, counted.ranks_per_layer,
        counted.ep_size);
  if (!flags.eplb_config)
    return {.experts = std::move(counted), .slots = std::nullopt, .layout = std::nullopt};
  FolderRun run{
      .experts = {}, .slots = std::nullopt, .layout = LayoutOf(flags, counted, num_experts)};
  run.experts = statistics::SlotsToExperts(counted, *run.layout, *flags.eplb_config);
  run.slots = std::move(counted);
  return run;
}

const std::string& LoadFlags::Source() const {
  return !statistics.path.empty() ? statistics.path : !loads.empty() ? loads : routing;
}

void AddLoadFlags(Command command, LoadFlags& flags) {
  AddStatisticsFlags(command, flags.statistics);
  command.Add("--loads", flags.loads,
              "recorded loads: FILE.jsonl (vLLM), FILE.json or FILE.pt or their folder (SGLang), "
              "FILE.csv, FILE.npy, FILE.npz:ARRAY, FILE.safetensors:TENSOR");
  command.Add("--axes", flags.axes,
              "what a three-dimensional array of --loads is: steps,layers,experts or "
              "layers,ranks,slots");
  command.Add("--phase", flags.phase,
              "batches of --loads to take: prefill, decode, mixed (default: all; SGLang's "
              "per_token dumps tell)");
  command.Add("--routing", flags.routing, "safetensors file of expert ids per token, layer and k");
  command
      .Add("--num-experts", flags.num_experts,
           "experts of a --routing file (default: one more than the largest id), or of an "
           "--eplb_config without layers")
      .Positive();
  command
      .Add("--tokens-per-iteration", flags.tokens_per_iteration,
           fmt::format("tokens of an iteration, to cut a --routing file into (default: {})",
                       kTokensPerIteration))
      .Positive();
  command.Add("--layers", flags.layers,
              "layers of the model that the rows of the source are, like 3-60; or, when "
              "fewer than the source has, those to take");
}

namespace {

RecordedLoads OfStatistics(const statistics::ExpertStatistics& recorded) {
  RecordedLoads result{.num_experts = recorded.num_experts, .ep_size = recorded.ep_size};
  for (size_t l = 0; l < recorded.num_layers(); ++l)
    result.layers[recorded.layers[l]] = statistics::LayerBatches(recorded, l);
  return result;
}

RecordedLoads OfFolder(const FolderRun& run, const std::string& path) {
  RecordedLoads result = OfStatistics(run.experts);
  result.ep_size_from = fmt::format("the rank files of {}", path);
  if (!run.slots && result.ep_size > 1 && result.num_experts % result.ep_size != 0)
    LogWarn("{}: {} ranks recorded, which do not divide {} experts; is {} or another one missing?",
            path, result.ep_size, result.num_experts, statistics::RankFileName(result.ep_size));
  result.engine = formats::Engine::kTensorRtLlm;
  if (run.layout) result.layout = run.layout->layers;
  if (run.slots)
    for (size_t l = 0; l < run.slots->num_layers(); ++l)
      result.slots[run.slots->layers[l]] = statistics::LayerBatches(*run.slots, l);
  return result;
}

std::map<int32_t, eplb::BatchLoads> BatchesOf(const statistics::LoadTable& table) {
  std::map<int32_t, eplb::BatchLoads> layers;
  for (const auto& [layer, loads] : table.layers)
    layers[layer] = statistics::LayerBatches(table, layer);
  return layers;
}

RecordedLoads OfRecording(const formats::Recording& recording) {
  RecordedLoads result{.num_experts = recording.loads.num_experts,
                       .ep_size = recording.ep_size,
                       .ep_size_from = fmt::format("told by {}", recording.source),
                       .has_batches = !recording.loads.batches.empty(),
                       .layers = BatchesOf(recording.loads),
                       .engine = recording.engine,
                       .layout = recording.slot_expert};
  if (recording.slot_loads) result.slots = BatchesOf(*recording.slot_loads);
  return result;
}

RecordedLoads OfRouting(const LoadFlags& flags) {
  const eplb::RoutingTrace routing = statistics::ReadRouting(flags.routing, flags.num_experts);
  const int64_t tokens =
      flags.tokens_per_iteration == 0 ? kTokensPerIteration : flags.tokens_per_iteration;
  RecordedLoads result = OfStatistics(statistics::CutIntoIterations(routing, tokens));
  result.ep_size = 0;
  int64_t num_tokens = 0;
  for (const eplb::RoutingTask& task : routing.tasks) num_tokens += routing.NumTokens(task);
  if (num_tokens > tokens && num_tokens % tokens != 0)
    for (auto& [id, layer] : result.layers) layer.UnbatchLast();
  return result;
}

RecordedLoads ReadSource(const LoadFlags& flags) {
  if (!flags.statistics.path.empty())
    return OfFolder(ReadFolder(flags.statistics, true, flags.num_experts), flags.statistics.path);
  if (!flags.loads.empty()) return OfRecording(ReadFlaggedRecording(flags));
  return OfRouting(flags);
}

// The same choice of layers for all that the recording has per layer.
template <class T>
std::map<int32_t, T> Chosen(std::map<int32_t, T>& from, const std::vector<int32_t>& wanted,
                            bool renumbers) {
  std::map<int32_t, T> chosen;
  auto next = from.begin();
  for (const int32_t layer : wanted) {
    const auto found = renumbers ? next : from.find(layer);
    if (found == from.end()) return {};
    chosen[layer] = std::move(found->second);
    if (renumbers) ++next;
  }
  return chosen;
}

void ChooseLayers(const std::string& text, RecordedLoads& recorded) {
  const std::vector<int32_t> wanted = ParseLayers(text);
  const bool renumbers = wanted.size() == recorded.layers.size();
  for (const int32_t layer : wanted)
    if (!renumbers && !recorded.layers.contains(layer))
      Throw(ErrorKind::kInvalid,
            "--layers {} names layer {}, which the source lacks; allowed: some of the layers {} to "
            "{} it has, or new numbers for all {} of them",
            text, layer, recorded.layers.begin()->first, recorded.layers.rbegin()->first,
            recorded.layers.size());
  recorded.layers = Chosen(recorded.layers, wanted, renumbers);
  recorded.layout = Chosen(recorded.layout, wanted, renumbers);
  recorded.slots = Chosen(recorded.slots, wanted, renumbers);
}

}  // namespace

void CheckLoadFlags(const LoadFlags& flags) {
  const int sources =
      !flags.statistics.path.empty() + !flags.loads.empty() + !flags.routing.empty();
  if (sources != 1)
    Throw(ErrorKind::kInvalid,
          "found {} of --expert_statistic_path, --loads and --routing; exactly one is allowed",
          sources);
  if (flags.statistics.path.empty() && flags.statistics.HasWindow())
    Throw(ErrorKind::kInvalid, "--iter_start and --iter_stop need --expert_statistic_path");
  if (!flags.routing.empty() && flags.statistics.eplb_config)
    Throw(ErrorKind::kInvalid,
          "--eplb_config needs --expert_statistic_path or --loads; a routing file has no slots");
  if (flags.loads.empty() && (!flags.axes.empty() || !flags.phase.empty()))
    Throw(ErrorKind::kInvalid, "--axes and --phase need --loads");
  if (flags.routing.empty() && flags.num_experts != 0 && !flags.statistics.eplb_config)
    Throw(ErrorKind::kInvalid, "--num_experts needs --routing, or --eplb_config");
  if (flags.routing.empty() && flags.tokens_per_iteration != 0)
    Throw(ErrorKind::kInvalid, "--tokens_per_iteration needs --routing");
}

namespace {

// Figures over prompts and answers together are those of neither.
void TellPhases(const LoadFlags& flags, const formats::Recording& recording) {
  std::map<formats::Phase, int64_t> batches;
  for (const formats::Phase phase : recording.phases) ++batches[phase];
  if (batches.size() < 2) return;
  std::vector<std::string> parts;
  for (const auto& [phase, count] : batches)
    parts.push_back(fmt::format("{} {}", count, formats::PhaseName(phase)));
  LogInfo("{}: batches of several phases, taken together: {} (--phase takes one of them)",
          flags.loads, fmt::join(parts, ", "));
}

}  // namespace

formats::Recording ReadFlaggedRecording(const LoadFlags& flags) {
  formats::ReadRecordingOptions options{.axes = {}, .placement_path = flags.statistics.eplb_config};
  if (!flags.axes.empty()) options.axes = formats::ParseAxes(flags.axes, "--axes");
  formats::Recording recording = formats::ReadRecording(flags.loads, options);
  if (!flags.phase.empty())
    formats::KeepPhase(formats::ParsePhase(flags.phase, "--phase"), "--phase", recording);
  for (const std::string& note : recording.notes) LogInfo("{}: {}", flags.loads, note);
  TellPhases(flags, recording);
  return recording;
}

statistics::ExpertStatistics ReadFlaggedRouting(const LoadFlags& flags) {
  return statistics::CutIntoIterations(
      statistics::ReadRouting(flags.routing, flags.num_experts),
      flags.tokens_per_iteration == 0 ? kTokensPerIteration : flags.tokens_per_iteration);
}

int32_t EpSizeOf(int32_t ep_size, const RecordedLoads& recorded) {
  if (ep_size == 0 && recorded.ep_size == 0)
    Throw(ErrorKind::kInvalid,
          "--ep_size is missing; only a statistics folder tells it, and some "
          "files of loads");
  if (ep_size == 0 && recorded.ep_size == 1)
    Throw(ErrorKind::kInvalid,
          "--ep_size is missing: one rank recorded ({}), and experts are balanced over several",
          recorded.ep_size_from);
  return ep_size != 0 ? ep_size : recorded.ep_size;
}

RecordedLoads ReadRecordedLoads(const LoadFlags& flags) {
  CheckLoadFlags(flags);
  RecordedLoads recorded = ReadSource(flags);
  if (!flags.layers.empty()) ChooseLayers(flags.layers, recorded);
  return recorded;
}

}  // namespace wideload::apps
