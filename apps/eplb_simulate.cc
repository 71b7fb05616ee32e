// `wideload eplb simulate`: what placements and splits would have brought on recorded routing.
#include <algorithm>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "eplb/placement/even_split.h"
#include "eplb/policies/policy.h"
#include "eplb/replay/bounds.h"
#include "eplb/replay/placement_figures.h"
#include "eplb/replay/simulate.h"
#include "eplb/search/repair.h"
#include "eplb_commands.h"
#include "eplb_rebalance.h"
#include "eplb_traces.h"
#include "formats/engine.h"

namespace wideload::apps {
namespace {

using namespace eplb;

struct SimulateFlags {
  TraceFlags trace;
  int32_t ep_size = 0;
  int32_t num_slots = 0;
  std::vector<std::string> policies = PolicyNames(&Policy::is_compared);
  std::string engine;
  std::vector<std::string> splits;  // empty: the engine's, else kSplits
  NodeFlags nodes;
  int32_t repair_slots = 0;
  double shared_expert_cost = 0;
  std::vector<int32_t> dead_ranks;
  RebalanceFlags rebalance;
  uint64_t seed = 1;
  bool json = false;
};

const std::vector<std::string> kSplits = {"even", "optimal", "optimal_fractional"};

struct LayerOutcome {
  std::vector<SimulatedRun> runs;  // policies outermost, then splits
  std::vector<double> plan_ms;     // [policies]
  std::vector<double> clairvoyant;
  double component_bound = 0;
  double floor = 0;
  double choices = 0;  // routed tokens of a measured iteration, mean
};

SimulatedPolicy PolicyOf(const std::string& name, const SimulateFlags& flags, double& plan_ms) {
  const Policy& policy = FindPolicy(name);
  SimulatedPolicy out;
  out.name = name;
  if (policy.looks_at_nodes) out.nodes = flags.nodes.Sizes();
  out.plan = [&policy, &flags, &plan_ms](const BatchLoads& recorded) {
    const double start = ThreadMilliseconds();
    Placement placement = PlanLayer(policy, {.loads = recorded,
                                             .num_slots = flags.num_slots,
                                             .num_ranks = flags.ep_size,
                                             .nodes = flags.nodes.Sizes(),
                                             .max_cross_slots = flags.nodes.MaxCrossSlots(),
                                             .seed = flags.seed});
    plan_ms = ThreadMilliseconds() - start;
    return placement;
  };
  if (flags.repair_slots > 0 && policy.balances)
    out.repair = [&policy, &flags](const Placement& now, const BatchLoads& seen) {
      RepairOptions options{.max_fetched_slots = flags.repair_slots,
                            .splits_evenly = policy.is_for_even_split,
                            .seed = flags.seed};
      if (policy.looks_at_nodes) options.nodes = flags.nodes.Sizes();
      if (policy.bounds_cross_slots) options.max_cross_slots = flags.nodes.MaxCrossSlots();
      return RepairPlacement(now, seen, options).placement;
    };
  return out;
}

SimulateOptions OptionsOf(const SimulateFlags& flags) {
  SimulateOptions options{.num_ranks = flags.ep_size,
                          .num_slots = flags.num_slots,
                          .splits = {},
                          .shared_expert_cost = flags.shared_expert_cost,
                          .dead_ranks = flags.dead_ranks};
  for (const std::string& split : flags.splits)
    options.splits.push_back(ParseSimulatedSplit(split));
  return options;
}

LayerOutcome RunLayer(const SimulateFlags& flags, const LayerTrace& trace) {
  const SimulateOptions options = OptionsOf(flags);
  LayerOutcome outcome;
  outcome.plan_ms.resize(flags.policies.size());
  std::vector<SimulatedPolicy> policies;
  for (size_t i = 0; i < flags.policies.size(); ++i)
    policies.push_back(PolicyOf(flags.policies[i], flags, outcome.plan_ms[i]));
  outcome.runs = SimulateLayer(trace, options, policies);
  const Sizes live = LiveSizes(options);
  if (live.num_slots >= trace.num_experts)
    outcome.clairvoyant = ClairvoyantImbalance(trace, live.num_ranks, live.num_slots);
  outcome.component_bound = ComponentBound(RecordedBatches(trace), live);
  for (const std::vector<uint16_t>& iteration : trace.measured)
    outcome.choices +=
        static_cast<double>(iteration.size()) / static_cast<double>(trace.measured.size());
  outcome.floor = SamplingFloor(static_cast<int64_t>(outcome.choices), live.num_ranks);
  return outcome;
}

// One policy and split over all layers.
class RunOfLayers {
 public:
  RunOfLayers(const std::vector<LayerOutcome>& outcomes, size_t index)
      : outcomes_(outcomes), index_(index) {}

  const SimulatedRun& first() const { return outcomes_.front().runs[index_]; }

  // Over iterations and layers.
  template <class Values>
  MeanAndP99 Summary(const Values& values) const {
    std::vector<double> all;
    for (const LayerOutcome& outcome : outcomes_) {
      const std::vector<double>& more = values(outcome.runs[index_]);
      all.insert(all.end(), more.begin(), more.end());
    }
    return Summarise(std::move(all));
  }
  // Over layers.
  template <class Value>
  double Mean(const Value& value) const {
    double sum = 0;
    for (const LayerOutcome& outcome : outcomes_)
      sum += static_cast<double>(value(outcome.runs[index_]));
    return sum / static_cast<double>(outcomes_.size());
  }

 private:
  const std::vector<LayerOutcome>& outcomes_;
  size_t index_;
};

int32_t CountComponents(const Placement& placement) {
  return JudgePlacement(placement, {placement.num_experts, {}, {}}).num_components;
}

// Slots whose expert a slot of another node holds too, less one per expert: what nodes copy.
int32_t CrossNodeReplicas(const Placement& placement, int32_t num_nodes) {
  std::vector<std::vector<bool>> holds(
      static_cast<size_t>(num_nodes),
      std::vector<bool>(static_cast<size_t>(placement.num_experts), false));
  const int32_t ranks_per_node = placement.num_ranks / num_nodes;
  for (int32_t s = 0; s < placement.num_slots(); ++s)
    holds[static_cast<size_t>(placement.RankOf(SlotId(s)).value / ranks_per_node)]
         [static_cast<size_t>(placement.slot_expert[static_cast<size_t>(s)].value)] = true;
  int32_t pairs = 0;
  for (const std::vector<bool>& node : holds)
    pairs += static_cast<int32_t>(std::count(node.begin(), node.end(), true));
  return pairs - placement.num_experts;
}

Json SharedJson(const RunOfLayers& run) {
  const auto home = [](const SimulatedRun& r) -> const auto& { return r.shared.imbalance_home; };
  const auto filled = [](const SimulatedRun& r) -> const auto& { return r.shared.imbalance; };
  return {{"imbalance_home_mean", run.Summary(home).mean},
          {"imbalance_mean", run.Summary(filled).mean},
          {"imbalance_p99", run.Summary(filled).p99},
          {"rows_moved", run.Mean([](const SimulatedRun& r) { return r.shared.rows_moved; })}};
}

Json ResultJson(const SimulateFlags& flags, const std::vector<LayerOutcome>& outcomes,
                size_t index) {
  const RunOfLayers run(outcomes, index);
  const auto imbalance = [](const SimulatedRun& r) -> const auto& { return r.imbalance; };
  const MeanAndP99 summary = run.Summary(imbalance);
  double plan_ms = 0;
  for (const LayerOutcome& outcome : outcomes)
    plan_ms += outcome.plan_ms[index / flags.splits.size()] / static_cast<double>(outcomes.size());
  Json result{
      {"policy", run.first().policy},
      {"split", SimulatedSplitName(run.first().split)},
      {"imbalance_mean", summary.mean},
      {"imbalance_p99", summary.p99},
      {"slots_fetched_per_layer", run.Mean([](const SimulatedRun& r) { return r.fetched_slots; })},
      {"num_components",
       run.Mean([](const SimulatedRun& r) { return CountComponents(r.planned); })},
      {"duplicate_slots",
       run.Mean([](const SimulatedRun& r) { return CountDuplicateSlots(r.planned); })},
      {"plan_ms_per_layer", plan_ms}};
  if (run.first().split == SimulatedSplit::kOptimal) {
    const auto fraction = [](const SimulatedRun& r) -> const auto& {
      return r.imbalance_fractional;
    };
    result["imbalance_fractional_mean"] = run.Summary(fraction).mean;
    result["iterations_above_ceil"] =
        run.Mean([](const SimulatedRun& r) { return r.num_above_ceil; });
  }
  if (!flags.dead_ranks.empty())
    result["slots_fetched_first_per_layer"] =
        run.Mean([](const SimulatedRun& r) { return r.slots_fetched_first; });
  if (flags.nodes.num_nodes > 1 && flags.dead_ranks.empty())
    result["cross_node_replicas_per_layer"] = run.Mean(
        [&](const SimulatedRun& r) { return CrossNodeReplicas(r.planned, flags.nodes.num_nodes); });
  if (result.contains("cross_node_replicas_per_layer") && flags.repair_slots > 0)
    result["cross_node_replicas_repaired_per_layer"] = run.Mean(
        [&](const SimulatedRun& r) { return CrossNodeReplicas(r.last, flags.nodes.num_nodes); });
  if (flags.shared_expert_cost > 0) result["shared_expert"] = SharedJson(run);
  return result;
}

Json ReportOf(const SimulateFlags& flags, const LayerTraces& traces,
              const std::vector<LayerOutcome>& outcomes) {
  const double layers = static_cast<double>(outcomes.size());
  Json results = Json::array();
  for (size_t r = 0; r < outcomes.front().runs.size(); ++r)
    results.push_back(ResultJson(flags, outcomes, r));
  std::vector<double> clairvoyant;
  double floor = 0;
  double component_bound = 0;
  double choices = 0;
  for (const LayerOutcome& outcome : outcomes) {
    clairvoyant.insert(clairvoyant.end(), outcome.clairvoyant.begin(), outcome.clairvoyant.end());
    floor += outcome.floor / layers;
    component_bound += outcome.component_bound / layers;
    choices += outcome.choices / layers;
  }
  Json report{{"results", results},
              {"layers", outcomes.size()},
              {"layers_without_load", traces.without_load()},
              {"iterations", outcomes.front().runs.front().imbalance.size()},
              {"num_experts", traces.num_experts()},
              {"ep_size", flags.ep_size},
              {"num_slots", flags.num_slots},
              {"seed", flags.seed},
              {"routed_tokens_per_iteration", choices},
              {"floor", floor},
              {"clairvoyant", nullptr},
              {"component_bound", component_bound}};
  if (!clairvoyant.empty()) report["clairvoyant"] = Summarise(std::move(clairvoyant)).mean;
  return report;
}

std::string ResultText(const Json& r) {
  std::string text = fmt::format(
      "{:<14} {:<19} {:>9.5f} {:>8.4f} {:>8.2f} {:>10.4g} {:>9.2f}", r["policy"].get<std::string>(),
      r["split"].get<std::string>(), r["imbalance_mean"].get<double>(),
      r["imbalance_p99"].get<double>(), r["slots_fetched_per_layer"].get<double>(),
      r["num_components"].get<double>(), r["plan_ms_per_layer"].get<double>());
  const auto more = [&](const char* key) {
    if (r.contains(key)) text += fmt::format(" {:>9.3f}", r[key].get<double>());
  };
  more("slots_fetched_first_per_layer");
  more("cross_node_replicas_per_layer");
  more("cross_node_replicas_repaired_per_layer");
  if (r.contains("shared_expert")) {
    const Json& shared = r["shared_expert"];
    text += fmt::format(" {:>9.5f} {:>9.5f} {:>7.3f}", shared["imbalance_home_mean"].get<double>(),
                        shared["imbalance_mean"].get<double>(), shared["rows_moved"].get<double>());
  }
  return text + "\n";
}

std::string ReportText(const SimulateFlags& flags, const Json& report) {
  std::string text = fmt::format("{:<14} {:<19} {:>9} {:>8} {:>8} {:>10} {:>9}", "policy", "split",
                                 "imbalance", "p99", "fetched", "components", "plan ms");
  if (!flags.dead_ranks.empty()) text += fmt::format(" {:>9}", "at death");
  if (flags.nodes.num_nodes > 1 && flags.dead_ranks.empty())
    text += fmt::format(" {:>9}", "crossing");
  if (flags.nodes.num_nodes > 1 && flags.dead_ranks.empty() && flags.repair_slots > 0)
    text += fmt::format(" {:>9}", "repaired");
  if (flags.shared_expert_cost > 0)
    text += fmt::format(" {:>9} {:>9} {:>7}", "+ shared", "filled", "moved");
  text += "\n";
  double above_ceil = 0;
  for (const Json& result : report["results"]) {
    text += ResultText(result);
    above_ceil += result.value("iterations_above_ceil", 0.0);
  }
  text += fmt::format(
      "{} layers, {} iterations of {:.0f} routed tokens measured on {} ranks with {} slots; static "
      "floor {:.4f}, component bound {:.4f}",
      report["layers"].get<int64_t>(), report["iterations"].get<int64_t>(),
      report["routed_tokens_per_iteration"].get<double>(), flags.ep_size, flags.num_slots,
      report["floor"].get<double>(), report["component_bound"].get<double>());
  if (!report["clairvoyant"].is_null())
    text += fmt::format(", clairvoyant {:.4f}", report["clairvoyant"].get<double>());
  if (std::find(flags.splits.begin(), flags.splits.end(), "optimal") != flags.splits.end())
    text += above_ceil == 0 ? "\noptimal: the busiest rank has the fractional optimum rounded up"
                            : "\noptimal: MORE than the fractional optimum rounded up";
  return text + "\n";
}

// What can be refused before a file is read.
void CheckNames(const SimulateFlags& flags) {
  if (flags.policies.empty()) Throw(ErrorKind::kInvalid, "--policies needs at least one name");
  CheckNodeFlags(flags.nodes, "--policies", flags.policies);
  if (flags.ep_size % flags.nodes.num_nodes != 0)
    Throw(ErrorKind::kInvalid, "--nodes is {}; it must divide --ep_size {}", flags.nodes.num_nodes,
          flags.ep_size);
  if (flags.repair_slots > 0 && flags.nodes.num_nodes > 1 && !flags.dead_ranks.empty())
    Throw(ErrorKind::kUnsupported,
          "--repair_slots_per_layer {} --nodes {} --dead_ranks {}: repair after a death does not "
          "look at nodes; allowed: two of the three",
          flags.repair_slots, flags.nodes.num_nodes, fmt::join(flags.dead_ranks, ","));
  LiveSizes(OptionsOf(flags));
}

void CheckSource(const SimulateFlags& flags, const LayerTraces& traces) {
  CheckNumSlots(traces.num_experts(), flags.num_slots, flags.ep_size);
  for (const SimulatedSplit split : OptionsOf(flags).splits)
    if (split == SimulatedSplit::kRoundRobin && !traces.has_tokens())
      Throw(ErrorKind::kInvalid,
            "--splits round_robin needs tokens in their order; a statistics folder has counts");
  if (!traces.without_load().empty())
    LogWarn("layers {} have no load and are left out", fmt::join(traces.without_load(), ", "));
}

// Those of --splits, else what the engine does. Draws at random are not replayed.
std::vector<std::string> SplitsOf(const SimulateFlags& flags) {
  if (flags.engine.empty()) return flags.splits.empty() ? kSplits : flags.splits;
  const formats::EngineTraits& traits = formats::FindEngine(flags.engine, "--engine");
  if (!flags.splits.empty()) return flags.splits;
  if (traits.split == formats::Split::kRandom)
    Throw(
        ErrorKind::kUnsupported,
        "--engine {}: draws a replica at random, which is not replayed; --splits even is the mean "
        "of its draws",
        flags.engine);
  const bool has_tokens = !flags.trace.routing.empty();
  if (traits.split == formats::Split::kRoundRobin && !has_tokens) {
    LogInfo("{}: goes round the replicas; without tokens in their order that is an even split",
            traits.title);
    return {"even"};
  }
  return {std::string(formats::SplitName(traits.split))};
}

// What makes or judges static plans says nothing of an online balancer.
void CheckRebalance(const SimulateFlags& flags) {
  const auto refuse = [](bool is_given, std::string_view flag) {
    if (is_given)
      Throw(ErrorKind::kInvalid, "{} has no meaning with --rebalance; leave one of them away",
            flag);
  };
  refuse(flags.policies != SimulateFlags().policies, "--policies");
  refuse(flags.nodes.num_nodes > 1 || flags.nodes.num_groups > 1, "--nodes");
  refuse(flags.repair_slots > 0, "--repair_slots_per_layer");
  refuse(flags.shared_expert_cost > 0, "--shared_expert_cost");
  refuse(!flags.dead_ranks.empty(), "--dead_ranks");
}

void SimulateOnline(const SimulateFlags& flags, const LayerTraces& traces) {
  RebalanceFlags rebalance = flags.rebalance;
  rebalance.options.seed = flags.seed;
  const std::vector<std::string> splits =
      flags.splits == kSplits ? std::vector<std::string>{"even", "optimal"} : flags.splits;
  const Json report =
      SimulateRebalance(rebalance, traces, {flags.ep_size, flags.num_slots, splits});
  WriteFileWhole("-", flags.json ? DumpJson(report, 2) + "\n" : RebalanceText(report));
}

void Simulate(SimulateFlags flags) {
  const bool is_online = flags.rebalance.mode != "off";
  if (is_online) CheckRebalance(flags);
  flags.splits = SplitsOf(flags);
  CheckNames(flags);
  const LayerTraces traces(flags.trace, flags.ep_size, flags.seed);
  CheckSource(flags, traces);
  if (is_online) return SimulateOnline(flags, traces);
  std::vector<LayerOutcome> outcomes(traces.layers().size());
  ForEachLayer(outcomes.size(), [&](size_t i) { outcomes[i] = RunLayer(flags, traces.Make(i)); });
  const Json report = ReportOf(flags, traces, outcomes);
  WriteFileWhole("-", flags.json ? DumpJson(report, 2) + "\n" : ReportText(flags, report));
}

}  // namespace

void AddEplbSimulate(Command group) {
  const Command command = group.Subcommand(
      "simulate", "replay routed tokens: imbalance of policies and splits, causally");
  SimulateFlags& flags = command.Runs<SimulateFlags>(Simulate);
  command.Add("--ep-size", flags.ep_size, "ranks").Required().Positive();
  command.Add("--num-slots", flags.num_slots, "slots of all ranks per layer").Required().Positive();
  command
      .Add("--policies", flags.policies,
           fmt::format("comma separated, of {} (default: {})", fmt::join(PolicyNames(), ", "),
                       fmt::join(flags.policies, ", ")))
      .CommaSeparated();
  command.Add("--engine", flags.engine,
              fmt::format("replay the split of this engine: {}", formats::EngineNames()));
  command
      .Add("--splits", flags.splits,
           "comma separated, of even, round_robin, optimal (whole tokens), "
           "optimal_fractional (default: that of --engine, else all but round_robin)")
      .CommaSeparated();
  AddTraceFlags(command, flags.trace);
  command
      .Add("--repair-slots-per-layer", flags.repair_slots,
           "slots of a layer that repair may change after each iteration; 0: planned once")
      .NonNegative()
      .ShowDefault();
  AddNodeFlags(command, flags.nodes);
  command
      .Add("--shared-expert-cost", flags.shared_expert_cost,
           "also with a shared expert whose rows cost so many routed rows and go to the "
           "least busy ranks; 0: none")
      .NonNegative()
      .ShowDefault();
  command
      .Add("--dead-ranks", flags.dead_ranks, "comma separated ranks that die when measuring begins")
      .CommaSeparated();
  AddRebalanceFlags(command, flags.rebalance);
  command.Add("--seed", flags.seed, "for drawing, planning and repair").ShowDefault();
  command.Add("--json", flags.json, "one JSON document instead of the table");
}

}  // namespace wideload::apps
