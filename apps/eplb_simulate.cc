// `wideload eplb simulate`: what placements and splits would have brought on recorded routing.
#include <algorithm>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "eplb/policies/policy.h"
#include "eplb/replay/bounds.h"
#include "eplb/replay/simulate.h"
#include "eplb/search/repair.h"
#include "eplb_commands.h"
#include "eplb_rebalance.h"
#include "eplb_simulate_report.h"
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
  const SimulationContext context{.num_experts = traces.num_experts(),
                                  .ep_size = flags.ep_size,
                                  .num_slots = flags.num_slots,
                                  .num_nodes = flags.nodes.num_nodes,
                                  .seed = flags.seed,
                                  .splits = flags.splits,
                                  .layers_without_load = traces.without_load(),
                                  .repairs = flags.repair_slots > 0,
                                  .has_dead_ranks = !flags.dead_ranks.empty(),
                                  .has_shared_expert = flags.shared_expert_cost > 0};
  const Json report = SimulationJson(context, outcomes);
  WriteFileWhole("-", flags.json ? DumpJson(report, 2) + "\n" : SimulationText(context, report));
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
