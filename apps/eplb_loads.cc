// Where the eplb commands take their loads from.
#include "base/error.h"
#include "eplb_commands.h"
#include "statistics/statistics_folder.h"

namespace wideload::apps {

Option AddStatisticsFlags(Command command, StatisticsFlags& flags) {
  command.Add("--iter-start", flags.iter_start,
              "first iteration of the folder to use (default: the first recorded)");
  command.Add("--iter-stop", flags.iter_stop,
              "one past the last iteration to use (default: all recorded)");
  command.Add("--eplb-config", flags.eplb_config,
              "EPLB YAML the engine ran with, if it counted slots instead of experts");
  return command.Add("--expert-statistic-path", flags.path,
                     "folder with meta_info.json and rank*.safetensors");
}

statistics::ExpertStatistics ReadFlaggedStatistics(const StatisticsFlags& flags, bool sum_ranks) {
  return statistics::ReadStatistics(flags.path, {.iter_start = flags.iter_start,
                                                 .iter_stop = flags.iter_stop,
                                                 .sum_ranks = sum_ranks,
                                                 .eplb_config_path = flags.eplb_config});
}

void AddLoadFlags(Command command, LoadFlags& flags) {
  AddStatisticsFlags(command, flags.statistics);
  command.Add("--loads", flags.loads,
              "load table [layers, experts]: FILE.safetensors:TENSOR, FILE.csv or FILE.json "
              "(SGLang's logical_count)");
  command.Add("--routing", flags.routing, "safetensors file of expert ids per token, layer and k");
  command
      .Add("--num-experts", flags.num_experts,
           "experts of a --routing file (default: one more than the largest id)")
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
  RecordedLoads result{
      .num_experts = recorded.num_experts, .ep_size = recorded.ep_size, .layers = {}};
  for (size_t l = 0; l < recorded.num_layers(); ++l) {
    eplb::BatchLoads& layer = result.layers[recorded.layers[l]];
    layer.num_experts = recorded.num_experts;
    for (int64_t i = 0; i < recorded.num_iterations; ++i) {
      const auto row = recorded.Row(i, l, 0);
      layer.Add(std::vector<double>(row.begin(), row.end()));
    }
  }
  return result;
}

RecordedLoads OfTable(const statistics::LoadTable& table) {
  RecordedLoads result{.num_experts = table.num_experts,
                       .ep_size = 0,
                       .has_batches = !table.batches.empty(),
                       .layers = {}};
  for (const auto& [layer, loads] : table.layers) {
    eplb::BatchLoads& batches = result.layers[layer];
    batches.num_experts = table.num_experts;
    if (!result.has_batches) batches.Add(loads);
    if (result.has_batches)
      for (const std::vector<double>& batch : table.batches.at(layer)) batches.Add(batch);
  }
  return result;
}

RecordedLoads OfRouting(const statistics::Routing& routing, int64_t tokens_per_iteration) {
  RecordedLoads result = OfStatistics(statistics::CutIntoIterations(routing, tokens_per_iteration));
  result.ep_size = 0;
  int64_t num_tokens = 0;
  for (const statistics::RoutingTask& task : routing.tasks) num_tokens += routing.NumTokens(task);
  if (num_tokens > tokens_per_iteration && num_tokens % tokens_per_iteration != 0)
    for (auto& [id, layer] : result.layers) layer.UnbatchLast();
  return result;
}

void CheckSource(const LoadFlags& flags) {
  const int sources =
      !flags.statistics.path.empty() + !flags.loads.empty() + !flags.routing.empty();
  if (sources != 1)
    Throw(ErrorKind::kInvalid,
          "found {} of --expert_statistic_path, --loads and --routing; exactly one is allowed",
          sources);
  if (flags.statistics.path.empty() && flags.statistics.HasWindow())
    Throw(ErrorKind::kInvalid,
          "--iter_start, --iter_stop and --eplb_config need --expert_statistic_path");
  if (flags.routing.empty() && flags.num_experts != 0)
    Throw(ErrorKind::kInvalid, "--num_experts needs --routing");
  if (flags.routing.empty() && flags.tokens_per_iteration != 0)
    Throw(ErrorKind::kInvalid, "--tokens_per_iteration needs --routing");
}

RecordedLoads ReadSource(const LoadFlags& flags) {
  if (!flags.statistics.path.empty())
    return OfStatistics(ReadFlaggedStatistics(flags.statistics, true));
  if (!flags.loads.empty()) return OfTable(statistics::ReadLoads(flags.loads));
  return OfRouting(
      statistics::ReadRouting(flags.routing, flags.num_experts),
      flags.tokens_per_iteration == 0 ? kTokensPerIteration : flags.tokens_per_iteration);
}

void ChooseLayers(const std::string& text, RecordedLoads& recorded) {
  const std::vector<int32_t> wanted = ParseLayers(text);
  std::map<int32_t, eplb::BatchLoads> chosen;
  if (wanted.size() == recorded.layers.size()) {
    auto next = wanted.begin();
    for (auto& [layer, loads] : recorded.layers) chosen[*next++] = std::move(loads);
  } else {
    for (const int32_t layer : wanted) {
      const auto found = recorded.layers.find(layer);
      if (found == recorded.layers.end())
        Throw(
            ErrorKind::kInvalid,
            "--layers {} names layer {}, which the source lacks; allowed: some of the layers {} to "
            "{} it has, or new numbers for all {} of them",
            text, layer, recorded.layers.begin()->first, recorded.layers.rbegin()->first,
            recorded.layers.size());
      chosen[layer] = std::move(found->second);
    }
  }
  recorded.layers = std::move(chosen);
}

}  // namespace

int32_t EpSizeOf(int32_t ep_size, const RecordedLoads& recorded) {
  if (ep_size == 0 && recorded.ep_size == 0)
    Throw(ErrorKind::kInvalid, "--ep_size is missing; only a statistics folder tells it");
  return ep_size != 0 ? ep_size : recorded.ep_size;
}

RecordedLoads ReadRecordedLoads(const LoadFlags& flags) {
  CheckSource(flags);
  RecordedLoads recorded = ReadSource(flags);
  if (!flags.layers.empty()) ChooseLayers(flags.layers, recorded);
  return recorded;
}

}  // namespace wideload::apps
