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
  std::string split = "optimal";
  double until = 0.01;
  std::vector<int32_t> dead_ranks;
  NodeFlags nodes;
  uint64_t seed = 1;
  PlacementOutput output;
};

struct LayerRepair {
  int32_t layer = 0;
  bool has_load = false;
  eplb::RepairResult result;
  double repair_ms = 0;  // processor time
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

// Placements cannot tell a split in turn from an even one. Errors: kInvalid naming --split.
bool SplitsEvenly(const RepairFlags& flags) {
  switch (formats::ParseSplit(flags.split, "--split")) {
    case formats::Split::kOptimal:
      return false;
    case formats::Split::kEven:
    case formats::Split::kRoundRobin:
      return true;
    case formats::Split::kRandom:
      break;
  }
  Throw(ErrorKind::kInvalid, "--split is {}; allowed for repair: even, round_robin, optimal",
        flags.split);
}

// Who records may split otherwise than repair assumes.
void TellOtherSplit(const RepairFlags& flags, const RecordedLoads& recorded) {
  if (!recorded.engine || SplitsEvenly(flags)) return;
  const formats::EngineTraits& engine = formats::DefaultTraits(*recorded.engine);
  if (engine.split != formats::Split::kOptimal)
    LogInfo(
        "repair is for the optimal split of each batch; {}, whose format {} is, has {} split: "
        "--split even is for it",
        engine.title, flags.loads.Source(),
        engine.split == formats::Split::kEven ? "an even" : "another");
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
                                    .splits_evenly = SplitsEvenly(flags),
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

struct RepairTotals {
  int32_t num_layers = 0;  // with load
  int32_t num_above = 0;   // of them, those that stay above --until
  double imbalance_before = 0;
  double imbalance_after = 0;
  int64_t fetched_slots = 0;
  int64_t cross_slots_before = 0;
  int64_t cross_slots_after = 0;
  double repair_ms = 0;

  double FetchedPerLayer() const { return static_cast<double>(fetched_slots) / num_layers; }
};

RepairTotals TotalsOf(const RepairFlags& flags, const std::vector<LayerRepair>& repairs) {
  RepairTotals totals;
  for (const LayerRepair& repair : repairs) {
    totals.fetched_slots += repair.result.fetched_slots;
    totals.cross_slots_before += repair.result.cross_slots_before;
    totals.cross_slots_after += repair.result.cross_slots_after;
    totals.repair_ms += repair.repair_ms;
    if (!repair.has_load) continue;
    ++totals.num_layers;
    totals.num_above += repair.result.imbalance_after > flags.until ? 1 : 0;
    totals.imbalance_before += repair.result.imbalance_before;
    totals.imbalance_after += repair.result.imbalance_after;
  }
  totals.imbalance_before /= totals.num_layers;
  totals.imbalance_after /= totals.num_layers;
  return totals;
}

Json RepairJson(const RepairFlags& flags, const std::vector<LayerRepair>& repairs) {
  Json layers = Json::array();
  for (const LayerRepair& repair : repairs) {
    Json row{{"layer", repair.layer},
             {"has_load", repair.has_load},
             {"fetched_slots", repair.result.fetched_slots},
             {"repair_ms", repair.repair_ms}};
    if (repair.has_load) {
      row["imbalance_before"] = repair.result.imbalance_before;
      row["imbalance_after"] = repair.result.imbalance_after;
    }
    if (flags.nodes.num_nodes > 1) {
      row["cross_node_slots_before"] = repair.result.cross_slots_before;
      row["cross_node_slots_after"] = repair.result.cross_slots_after;
    }
    layers.push_back(std::move(row));
  }
  const RepairTotals totals = TotalsOf(flags, repairs);
  return {{"ep_size", flags.ep_size},
          {"split", flags.split},
          {"num_slots", repairs.front().result.placement.num_slots()},
          {"dead_ranks", flags.dead_ranks},
          {"until", flags.until},
          {"layers", layers},
          {"layers_above_until", totals.num_above},
          {"slots_fetched", totals.fetched_slots},
          {"slots_fetched_per_layer", totals.FetchedPerLayer()},
          {"imbalance_before", totals.imbalance_before},
          {"imbalance_after", totals.imbalance_after},
          {"repair_ms_per_layer", totals.repair_ms / static_cast<double>(repairs.size())}};
}

std::string CrossingText(const RepairFlags& flags, const RepairTotals& totals) {
  if (flags.nodes.num_nodes == 1) return "";
  return fmt::format(
      "{} nodes: {} slots of all layers held experts of other nodes than their home, {} do now\n",
      flags.nodes.num_nodes, totals.cross_slots_before, totals.cross_slots_after);
}

std::string RepairText(const RepairFlags& flags, const std::vector<LayerRepair>& repairs) {
  std::string text = fmt::format(
      "Imbalance ratio under {} split of each batch, mean over batches; slots whose expert a rank "
      "must fetch.\n{:>6} {:>8} {:>8} {:>8} {:>9}\n",
      SplitsEvenly(flags) ? "an even" : "the optimal", "layer", "before", "after", "fetched",
      "repair ms");
  for (const LayerRepair& repair : repairs)
    text +=
        repair.has_load
            ? fmt::format("{:>6} {:>8.4f} {:>8.4f} {:>8} {:>9.2f}\n", repair.layer,
                          repair.result.imbalance_before, repair.result.imbalance_after,
                          repair.result.fetched_slots, repair.repair_ms)
            : fmt::format("{:>6} {:>8} {:>8} {:>8} {:>9.2f}  no load recorded: left as it is\n",
                          repair.layer, "-", "-", repair.result.fetched_slots, repair.repair_ms);
  const RepairTotals totals = TotalsOf(flags, repairs);
  return text +
         fmt::format("{:>6} {:>8.4f} {:>8.4f} {:>8} {:>9.2f}\n", "all", totals.imbalance_before,
                     totals.imbalance_after, totals.fetched_slots, totals.repair_ms) +
         fmt::format("{} layers with load; {:.2f} slots fetched per layer\n", totals.num_layers,
                     totals.FetchedPerLayer()) +
         CrossingText(flags, totals);
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
  SplitsEvenly(flags);  // refuses a name before anything is read
  std::vector<FileUse> inputs = FilesOf(flags.loads);
  inputs.push_back(Reads("--from", flags.from));
  CheckPlacementOutput(flags.output, std::move(inputs));
  const statistics::EplbConfig config = statistics::ReadEplbYaml(flags.from);
  const RecordedLoads recorded = ReadRecordedLoads(flags.loads);
  const RankChoice ranks = RanksOf(flags, config, recorded);
  const bool tells_ranks = flags.ep_size > 0 || config.KnownEpSize().has_value();
  flags.ep_size = ranks.ep_size;
  LogInfo("{} ranks: {}", ranks.ep_size, ranks.from);
  TellOtherSplit(flags, recorded);
  std::vector<LayerRepair> repairs = StartRepairs(flags, config, recorded);
  const auto has_load = [](const LayerRepair& repair) { return repair.has_load; };
  if (std::none_of(repairs.begin(), repairs.end(), has_load))
    Throw(ErrorKind::kInvalid, "no layer has any load; nothing to repair {} for", flags.from);
  RepairLayers(flags, recorded, repairs);
  WriteResult(flags, config, tells_ranks, repairs);
  const RepairTotals totals = TotalsOf(flags, repairs);
  if (totals.num_above > 0)
    LogWarn("{} of {} layers stay above --until {}: {}", totals.num_above, totals.num_layers,
            flags.until,
            flags.max_fetched_slots
                ? fmt::format("--max_fetched_slots is {}, or no change gains enough",
                              *flags.max_fetched_slots)
                : "no change of one or two slots gains enough");
  WarnOfFlatLayers(flags, repairs);
  PrintPlacementReport(flags.output, flags.output.json
                                         ? DumpJson(RepairJson(flags, repairs), 2) + "\n"
                                         : RepairText(flags, repairs));
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
  command
      .Add("--split", flags.split,
           "what to balance for: the optimal split of each batch, or the even one of TensorRT-LLM, "
           "vLLM and SGLang (even, round_robin)")
      .ShowDefault();
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
