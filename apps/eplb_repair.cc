// `wideload eplb repair`: changes a placement file as little as new loads, or dead ranks, ask for.
#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "eplb/search/repair.h"
#include "eplb_commands.h"
#include "eplb_engine.h"
#include "eplb_repair_report.h"
#include "formats/engine.h"
#include "statistics/eplb_yaml.h"

namespace wideload::apps {
namespace {

constexpr int32_t kNoLimit = 1 << 20;

struct RepairFlags {
  std::string from;
  LoadFlags loads;
  int32_t ep_size = 0;
  std::optional<int32_t> max_fetched_slots;
  TargetEngineFlags engine;
  double until = 0.01;
  std::vector<int32_t> dead_ranks;
  NodeFlags nodes;
  uint64_t seed = 1;
  PlacementOutput output;
};

// Errors: kInvalid when nobody tells, or one rank recorded.
RankChoice RanksOf(const RepairFlags& flags, const statistics::EplbConfig& config,
                   const RecordedLoads& recorded) {
  RankChoice choice = ChooseRanks({{flags.ep_size, "--ep_size"},
                                   {config.KnownEpSize().value_or(0), "told by " + flags.from},
                                   {recorded.ep_size, recorded.ep_size_from}});
  if (choice.ep_size == 0)
    Throw(ErrorKind::kInvalid, "--ep_size is missing; {} does not tell for how many ranks it is",
          flags.from);
  if (flags.ep_size == 0 && !config.KnownEpSize()) {
    EpSizeOf(0, recorded);  // refuses one rank
    choice.from += fmt::format(
        "; {} does not tell its ranks, and --ep_size says it if there were others: the new file "
        "does "
        "not tell, either",
        flags.from);
  }
  return choice;
}

std::vector<double> RankSpeeds(const std::vector<int32_t>& dead_ranks, int32_t ep_size) {
  std::vector<double> speeds(static_cast<size_t>(ep_size), 1.0);
  for (const int32_t rank : dead_ranks) {
    if (rank < 0 || rank >= ep_size)
      Throw(ErrorKind::kInvalid, "--dead_ranks names rank {}; allowed: 0 to {}", rank, ep_size - 1);
    speeds[static_cast<size_t>(rank)] = 0;
  }
  return speeds;
}

// What to balance for: --split, else the split of --engine, else the optimal one.
formats::Split SplitOf(const TargetEngineFlags& flags) {
  if (!flags.split.empty()) return formats::ParseSplit(flags.split, "--split");
  if (!flags.engine.empty()) return formats::FindEngine(flags.engine, "--engine").split;
  return formats::Split::kOptimal;
}

// Placements cannot tell splits in turn and at random from an even one, which is the mean of both.
bool SplitsEvenly(const TargetEngineFlags& flags) {
  return SplitOf(flags) != formats::Split::kOptimal;
}

// Refused before anything is read. Errors: kInvalid naming --engine or --split.
void CheckSplit(const TargetEngineFlags& flags) {
  if (!flags.engine.empty()) formats::FindEngine(flags.engine, "--engine");
  if (!flags.split.empty() && SplitOf(flags) == formats::Split::kRandom)
    Throw(ErrorKind::kInvalid, "--split is {}; allowed for repair: even, round_robin, optimal",
          flags.split);
}

// For whom the repair is; who records may split otherwise than it assumes.
void TellSplit(const RepairFlags& flags, const RecordedLoads& recorded) {
  if (!flags.engine.engine.empty() || !flags.engine.split.empty())
    return LogInfo("{}",
                   ChooseEngine(flags.engine, recorded.engine, flags.loads.Source()).Sentence());
  if (!recorded.engine) return;
  const formats::EngineTraits& engine = formats::DefaultTraits(*recorded.engine);
  if (engine.split != formats::Split::kOptimal)
    LogInfo(
        "repair is for the optimal split of each batch; {}, whose format {} is, has {} split: "
        "--engine {} (or --split even) is for it",
        engine.title, flags.loads.Source(),
        engine.split == formats::Split::kEven ? "an even" : "another", engine.name);
}

void CheckNodes(const RepairFlags& flags) {
  if (flags.nodes.cross_node_slots && flags.nodes.num_nodes == 1)
    Throw(ErrorKind::kInvalid, "--cross_node_slots {} with --nodes 1; allowed: several nodes",
          *flags.nodes.cross_node_slots);
}

// Names the layer, which repair itself does not know.
void CheckCrossSlots(const RepairFlags& flags, const LayerRepair& repair) {
  const eplb::Placement& placement = repair.result.placement;
  const eplb::NodeRule homes = eplb::HomesOf(placement, flags.nodes.Sizes());
  if (!flags.nodes.cross_node_slots) return;
  const int32_t crossing =
      eplb::CountNodeSlots(placement, homes, RankSpeeds(flags.dead_ranks, flags.ep_size))
          .num_crossing;
  if (crossing > *flags.nodes.cross_node_slots)
    Throw(ErrorKind::kInvalid,
          "{}: layer {}: {} slots hold experts of other nodes than their home; --cross_node_slots "
          "is {} (without it repair adds none to them)",
          flags.from, repair.layer, crossing, *flags.nodes.cross_node_slots);
}

// The layers of the file that have loads, in both or refused.
std::vector<LayerRepair> StartRepairs(const RepairFlags& flags,
                                      const statistics::EplbConfig& config,
                                      const RecordedLoads& recorded) {
  if (!config.layers.empty() && config.num_experts() != recorded.num_experts)
    Throw(ErrorKind::kInvalid,
          "{}: places {} experts; the loads are of {} (is it the file of another model?)",
          flags.from, config.num_experts(), recorded.num_experts);
  const statistics::EplbTarget target{.num_experts = recorded.num_experts,
                                      .ep_size = flags.ep_size};
  eplb::ValidateSizes(target.num_experts, config.num_slots, target.ep_size, flags.from);
  CheckEpSize(target.ep_size);
  std::vector<LayerRepair> repairs;
  for (const auto& [layer, loads] : recorded.layers) {
    const bool has_load = eplb::HasLoad(loads.Sum());
    if (!has_load && !config.layers.contains(layer)) continue;
    LayerRepair& repair = repairs.emplace_back();
    repair.layer = layer;
    repair.has_load = has_load;
    repair.result.placement = statistics::LayerPlacement(config, layer, target, flags.from);
    CheckCrossSlots(flags, repair);
  }
  return repairs;
}

void RepairLayers(const RepairFlags& flags, const RecordedLoads& recorded,
                  std::vector<LayerRepair>& repairs) {
  const eplb::RepairOptions options{.max_fetched_slots = flags.max_fetched_slots.value_or(kNoLimit),
                                    .splits_evenly = SplitsEvenly(flags.engine),
                                    .until = flags.until,
                                    .rank_speed = RankSpeeds(flags.dead_ranks, flags.ep_size),
                                    .seed = flags.seed,
                                    .nodes = flags.nodes.Sizes(),
                                    .max_cross_slots = flags.nodes.MaxCrossSlots()};
  ForEachLayer(repairs.size(), [&](size_t i) {
    LayerRepair& repair = repairs[i];
    eplb::BatchLoads batches = recorded.layers.at(repair.layer).WithLoad();
    eplb::RepairOptions layer_options = options;
    if (!repair.has_load) {  // experts of dead ranks need a slot all the same
      batches = eplb::EqualLoads(batches.num_experts);
      layer_options.max_fetched_slots = 0;
    }
    const double start = ThreadMilliseconds();
    repair.result = eplb::RepairPlacement(repair.result.placement, batches, layer_options);
    repair.repair_ms = ThreadMilliseconds() - start;
  });
}

void WarnOfFlatLayers(const RepairFlags& flags, const std::vector<LayerRepair>& repairs) {
  if (flags.nodes.num_nodes == 1 || flags.nodes.cross_node_slots) return;
  int32_t num_flat = 0;
  int32_t most = 0;
  for (const LayerRepair& repair : repairs) {
    num_flat += repair.result.cross_slots_before > flags.nodes.num_nodes ? 1 : 0;
    most = std::max(most, repair.result.cross_slots_before);
  }
  if (num_flat > 0)
    LogWarn(
        "{} of {} layers held more than {} slots with experts of other nodes (up to {}) and may "
        "keep as many: {} was not planned for these nodes",
        num_flat, repairs.size(), flags.nodes.num_nodes, most, flags.from);
}

// The ranks are written where they are known, not where they were taken from the recording.
void WriteResult(const RepairFlags& flags, statistics::EplbConfig config, bool tells_ranks,
                 const std::vector<LayerRepair>& repairs) {
  for (const LayerRepair& repair : repairs) config.SetLayer(repair.layer, repair.result.placement);
  if (tells_ranks) config.planned_ep_size = flags.ep_size;
  statistics::WriteEplbYaml(flags.output.path, config);
}

void Repair(RepairFlags flags) {
  CheckNodes(flags);
  CheckSplit(flags.engine);
  std::vector<FileUse> inputs = FilesOf(flags.loads);
  inputs.push_back(Reads("--from", flags.from));
  CheckPlacementOutput(flags.output, std::move(inputs));
  const statistics::EplbConfig config = statistics::ReadEplbYaml(flags.from);
  const RecordedLoads recorded = ReadRecordedLoads(flags.loads);
  const RankChoice ranks = RanksOf(flags, config, recorded);
  const bool tells_ranks = flags.ep_size > 0 || config.KnownEpSize().has_value();
  flags.ep_size = ranks.ep_size;
  LogInfo("{} ranks: {}", ranks.ep_size, ranks.from);
  TellSplit(flags, recorded);
  std::vector<LayerRepair> repairs = StartRepairs(flags, config, recorded);
  const auto has_load = [](const LayerRepair& repair) { return repair.has_load; };
  if (std::none_of(repairs.begin(), repairs.end(), has_load))
    Throw(ErrorKind::kInvalid, "no layer has any load; nothing to repair {} for", flags.from);
  RepairLayers(flags, recorded, repairs);
  WriteResult(flags, config, tells_ranks, repairs);
  const RepairTotals totals = TotalsOf(repairs, flags.until);
  if (totals.num_above > 0)
    LogWarn("{} of {} layers stay above --until {}: {}", totals.num_above, totals.num_layers,
            flags.until,
            flags.max_fetched_slots
                ? fmt::format("--max_fetched_slots is {}, or no change gains enough",
                              *flags.max_fetched_slots)
                : "no change of one or two slots gains enough");
  WarnOfFlatLayers(flags, repairs);
  const RepairContext context{.ep_size = flags.ep_size,
                              .split = std::string(formats::SplitName(SplitOf(flags.engine))),
                              .splits_evenly = SplitsEvenly(flags.engine),
                              .until = flags.until,
                              .dead_ranks = flags.dead_ranks,
                              .num_nodes = flags.nodes.num_nodes};
  PrintPlacementReport(flags.output, flags.output.json
                                         ? DumpJson(RepairJson(context, repairs), 2) + "\n"
                                         : RepairText(context, repairs));
}

}  // namespace

void AddEplbRepair(Command group) {
  const Command command =
      group.Subcommand("repair", "change a placement file by few slots for new loads");
  RepairFlags& flags = command.Runs<RepairFlags>(Repair);
  command.Add("--from", flags.from, "EPLB YAML in use; - is stdin").Required();
  AddLoadFlags(command, flags.loads);
  command
      .Add("--ep-size", flags.ep_size,
           "ranks (default: those of the file, else those that recorded)")
      .Positive();
  command.Add("--engine", flags.engine.engine,
              fmt::format("balance for the split of this engine: {}", formats::EngineNames()));
  command.Add("--split", flags.engine.split,
              "what to balance for: the optimal split of each batch, or the even one of "
              "TensorRT-LLM, vLLM and SGLang (even, round_robin) (default: that of --engine, else "
              "optimal)");
  command
      .Add("--until", flags.until,
           "imbalance ratio of a layer, mean over batches, at which to stop")
      .NonNegative()
      .ShowDefault();
  command
      .Add("--max-fetched-slots", flags.max_fetched_slots,
           "slots of a layer that may get another expert (default: no limit)")
      .NonNegative();
  command
      .Add("--dead-ranks", flags.dead_ranks,
           "comma separated ranks that compute nothing; experts only they hold get slots "
           "elsewhere first, whatever the limit")
      .CommaSeparated();
  AddNodeFlags(command, flags.nodes);
  command.Add("--seed", flags.seed, "of the search").ShowDefault();
  AddPlacementOutput(command, flags.output);
}

}  // namespace wideload::apps
