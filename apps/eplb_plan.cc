// `wideload eplb plan`: a placement file from recorded loads; takes the place of TensorRT-LLM's
// generate_eplb_config.py.
#include <chrono>
#include <cstdio>
#include <exception>
#include <memory>
#include <thread>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/thread_pool.h"
#include "command_line.h"
#include "eplb/even_split.h"
#include "eplb/policy.h"
#include "eplb_commands.h"
#include "statistics/eplb_yaml.h"

namespace wideload::apps {
namespace {

struct PlanFlags {
  LoadFlags loads;
  int32_t ep_size = 0;
  int32_t num_slots = 0;
  std::string policy = "tensorrt_llm";
  int32_t num_nodes = 1;
  int32_t num_groups = 1;
  int32_t layer_updates_per_iter = 0;
  uint64_t seed = 0;
  std::string output;
  bool json = false;
};

struct LayerPlan {
  int32_t layer = 0;
  const RecordedLayer* loads = nullptr;
  eplb::Placement placement;
  double imbalance_contiguous = 0;  // even split, mean over the recorded iterations
  double imbalance_planned = 0;
  int32_t duplicate_slots = 0;
  int32_t slots_changed = 0;
  bool has_load = false;
  std::exception_ptr error;
};

double MeanImbalance(const eplb::Placement& placement, const RecordedLayer& loads) {
  double sum = 0;
  for (const std::vector<double>& iteration : loads.iterations)
    sum += eplb::ImbalanceRatio(eplb::EvenSplitRankLoads(placement, iteration));
  return sum / static_cast<double>(loads.iterations.size());
}

void PlanLayer(const PlanFlags& flags, const eplb::Policy& policy, LayerPlan& plan) {
  const std::vector<double>& loads = plan.loads->total;
  plan.has_load = std::any_of(loads.begin(), loads.end(), [](double load) { return load > 0; });
  plan.placement = policy.plan({.loads = loads,
                                .scenarios = plan.loads->iterations,
                                .num_slots = flags.num_slots,
                                .num_ranks = flags.ep_size,
                                .num_nodes = flags.num_nodes,
                                .num_groups = flags.num_groups,
                                .seed = flags.seed});
  const eplb::Placement contiguous =
      eplb::ContiguousPlacement(static_cast<int32_t>(loads.size()), flags.num_slots, flags.ep_size);
  plan.imbalance_contiguous = MeanImbalance(contiguous, *plan.loads);
  plan.imbalance_planned = MeanImbalance(plan.placement, *plan.loads);
  plan.duplicate_slots = eplb::CountDuplicateSlots(plan.placement);
  plan.slots_changed = eplb::CountChangedSlots(contiguous, plan.placement);
}

// Layers are independent: any thread plans any layer, and the result does not depend on which.
std::vector<LayerPlan> PlanLayers(const PlanFlags& flags, const RecordedLoads& recorded) {
  const eplb::Policy& policy = eplb::FindPolicy(flags.policy);
  std::vector<LayerPlan> plans;
  for (const auto& [layer, loads] : recorded.layers) {
    LayerPlan& plan = plans.emplace_back();
    plan.layer = layer;
    plan.loads = &loads;
  }
  ThreadPool pool("plan", static_cast<int>(std::max(1U, std::thread::hardware_concurrency())));
  const auto start = std::chrono::steady_clock::now();
  pool.Run(std::ssize(plans), [&](int64_t i, int) {
    LayerPlan& plan = plans[static_cast<size_t>(i)];
    try {
      PlanLayer(flags, policy, plan);
    } catch (...) {
      plan.error = std::current_exception();
    }
  });
  const std::chrono::duration<double, std::milli> elapsed =
      std::chrono::steady_clock::now() - start;
  for (const LayerPlan& plan : plans)
    if (plan.error) std::rethrow_exception(plan.error);
  LogInfo("planned and judged {} layers in {:.1f} ms on {} threads", plans.size(), elapsed.count(),
          pool.num_threads());
  return plans;
}

struct Totals {
  double imbalance_contiguous = 0;  // means over layers
  double imbalance_planned = 0;
  int64_t duplicate_slots = 0;
  int64_t slots_changed = 0;
};

Totals TotalsOf(const std::vector<LayerPlan>& plans) {
  Totals totals;
  for (const LayerPlan& plan : plans) {
    totals.imbalance_contiguous += plan.imbalance_contiguous / static_cast<double>(plans.size());
    totals.imbalance_planned += plan.imbalance_planned / static_cast<double>(plans.size());
    totals.duplicate_slots += plan.duplicate_slots;
    totals.slots_changed += plan.slots_changed;
  }
  return totals;
}

std::string PlanText(const PlanFlags& flags, const std::vector<LayerPlan>& plans) {
  std::string text = fmt::format(
      "{}: {} slots on {} ranks. Imbalance ratio under an even split, mean over the recorded "
      "iterations.\n{:>6} {:>11} {:>9} {:>10} {:>13}\n",
      flags.policy, flags.num_slots, flags.ep_size, "layer", "contiguous", "planned", "duplicates",
      "slots changed");
  for (const LayerPlan& plan : plans)
    text += fmt::format("{:>6} {:>11.4f} {:>9.4f} {:>10} {:>13}{}\n", plan.layer,
                        plan.imbalance_contiguous, plan.imbalance_planned, plan.duplicate_slots,
                        plan.slots_changed, plan.has_load ? "" : "  no load recorded");
  const Totals totals = TotalsOf(plans);
  text +=
      fmt::format("{:>6} {:>11.4f} {:>9.4f} {:>10} {:>13}\n", "all", totals.imbalance_contiguous,
                  totals.imbalance_planned, totals.duplicate_slots, totals.slots_changed);
  return text;
}

Json PlanJson(const PlanFlags& flags, const std::vector<LayerPlan>& plans) {
  Json layers = Json::array();
  for (const LayerPlan& plan : plans)
    layers.push_back({{"layer", plan.layer},
                      {"imbalance_contiguous", plan.imbalance_contiguous},
                      {"imbalance_planned", plan.imbalance_planned},
                      {"duplicate_slots", plan.duplicate_slots},
                      {"slots_changed", plan.slots_changed},
                      {"has_load", plan.has_load}});
  const Totals totals = TotalsOf(plans);
  return {{"policy", flags.policy},
          {"ep_size", flags.ep_size},
          {"num_slots", flags.num_slots},
          {"layers", layers},
          {"imbalance_contiguous", totals.imbalance_contiguous},
          {"imbalance_planned", totals.imbalance_planned},
          {"duplicate_slots", totals.duplicate_slots},
          {"slots_changed", totals.slots_changed}};
}

void WarnOfLayersWithoutLoad(const std::vector<LayerPlan>& plans) {
  std::vector<int32_t> layers;
  for (const LayerPlan& plan : plans)
    if (!plan.has_load) layers.push_back(plan.layer);
  if (!layers.empty())
    LogWarn("no load was recorded for layers {}: their experts are placed as for equal loads",
            fmt::join(layers, ", "));
}

void Plan(PlanFlags flags) {
  if (flags.json && flags.output == "-")
    Throw(ErrorKind::kInvalid, "--json and --output_path -: only one can have standard output");
  eplb::FindPolicy(flags.policy);
  const RecordedLoads recorded = ReadRecordedLoads(flags.loads);
  if (flags.ep_size == 0) flags.ep_size = recorded.ep_size;
  if (flags.ep_size == 0)
    Throw(ErrorKind::kInvalid, "--ep_size is missing; only a statistics folder tells it");
  if (flags.num_slots == 0) flags.num_slots = recorded.num_experts;
  eplb::ValidateSizes(recorded.num_experts, flags.num_slots, flags.ep_size, "--num_slots");

  const std::vector<LayerPlan> plans = PlanLayers(flags, recorded);
  statistics::EplbConfig config{.num_slots = flags.num_slots,
                                .layer_updates_per_iter = flags.layer_updates_per_iter};
  for (const LayerPlan& plan : plans) {
    std::vector<int32_t>& slots = config.layers[plan.layer];
    for (const ExpertId expert : plan.placement.slot_expert) slots.push_back(expert.value);
  }
  statistics::WriteEplbYaml(flags.output, config);
  WarnOfLayersWithoutLoad(plans);
  if (flags.json)
    WriteFileWhole("-", DumpJson(PlanJson(flags, plans), 2) + "\n");
  else if (flags.output == "-")
    std::fputs(PlanText(flags, plans).c_str(), stderr);
  else
    WriteFileWhole("-", PlanText(flags, plans));
}

std::string PolicyHelp() {
  std::string help = "how experts are placed:";
  for (const eplb::Policy& policy : eplb::Policies())
    help += fmt::format(" {} ({});", policy.name, policy.summary);
  help.pop_back();
  return help;
}

}  // namespace

void AddEplbPlan(CLI::App& group) {
  CLI::App* command =
      group.add_subcommand("plan", "make a placement file (EPLB YAML) from recorded loads");
  const auto flags = std::make_shared<PlanFlags>();  // shared by the parser and the callback
  AddLoadFlags(*command, flags->loads);
  command->add_option(Names("ep-size"), flags->ep_size, "ranks (default: those that recorded)")
      ->check(CLI::PositiveNumber);
  command
      ->add_option(Names("num-slots"), flags->num_slots,
                   "slots of all ranks per layer (default: one per expert)")
      ->check(CLI::PositiveNumber);
  command->add_option(Names("policy"), flags->policy, PolicyHelp())->capture_default_str();
  command->add_option(Names("nodes"), flags->num_nodes, "nodes the ranks are spread over")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option(Names("num-groups"), flags->num_groups, "expert groups of the router")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command
      ->add_option(Names("layer-updates-per-iter"), flags->layer_updates_per_iter,
                   "written to the file: layers the engine may re-place per iteration, 0 = static")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option(Names("seed"), flags->seed, "for policies that search at random")
      ->capture_default_str();
  command->add_option(Names("output-path"), flags->output, "EPLB YAML to write; - is stdout")
      ->required();
  command->add_flag("--json", flags->json, "one JSON document instead of the table");
  command->callback([flags] { Plan(*flags); });
}

}  // namespace wideload::apps
