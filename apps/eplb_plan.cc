// `wideload eplb plan`: a placement file from recorded loads; takes the place of TensorRT-LLM's
// generate_eplb_config.py.

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "eplb/placement/even_split.h"
#include "eplb/placement/keep_slots.h"
#include "eplb/policies/policy.h"
#include "eplb/replay/placement_figures.h"
#include "eplb/search/scenario_planner.h"
#include "eplb_commands.h"
#include "eplb_engine.h"
#include "eplb_even_gain.h"
#include "eplb_held_out.h"
#include "eplb_plan_report.h"
#include "statistics/eplb_yaml.h"

namespace wideload::apps {
namespace {

struct PlanFlags {
  LoadFlags loads;
  TargetEngineFlags engine;
  int32_t ep_size = 0;
  int32_t num_slots = 0;
  std::string policy;  // empty: GreedyPolicy, and the gain of another is told
  NodeFlags nodes;
  int32_t layer_updates_per_iter = 0;
  uint64_t seed = 0;
  std::optional<double> fetch_price;
  PlacementOutput output;
};

// As many slots as the plan: by slot. Else the slots whose rank lacks their expert.
int32_t SlotsChanged(const eplb::Placement& now, const eplb::Placement& planned) {
  return now.num_slots() == planned.num_slots() ? eplb::CountChangedSlots(now, planned)
                                                : eplb::CountFetchedSlots(now, planned);
}

// Plans of another program stay as that makes them: their ranks are not renamed for the layout in
// use.
eplb::Placement PlacementOf(const PlanFlags& flags, const eplb::Policy& policy,
                            const LayerPlan& plan) {
  const bool keeps_layout = plan.has_layout && !policy.is_of_other_program;
  return eplb::PlanLayer(policy, {.loads = *plan.loads,
                                  .num_slots = flags.num_slots,
                                  .num_ranks = flags.ep_size,
                                  .nodes = flags.nodes.Sizes(),
                                  .max_cross_slots = flags.nodes.MaxCrossSlots(),
                                  .seed = flags.seed,
                                  .current = keeps_layout ? &plan.now : nullptr,
                                  .fetch_price = flags.fetch_price.value_or(0)});
}

void MakePlan(const PlanFlags& flags, const eplb::Policy& policy, LayerPlan& plan) {
  plan.has_load = eplb::HasLoad(plan.loads->Sum());
  const double start = ThreadMilliseconds();
  plan.placement = PlacementOf(flags, policy, plan);
  plan.plan_ms = ThreadMilliseconds() - start;
  const eplb::BatchLoads batches = plan.loads->WithLoad();
  plan.figures_now = eplb::JudgePlacement(plan.now, batches);
  plan.figures = eplb::JudgePlacement(plan.placement, batches);
  plan.bounds =
      eplb::BoundPlacements(batches, {.num_slots = flags.num_slots, .num_ranks = flags.ep_size});
  plan.slots_changed = SlotsChanged(plan.now, plan.placement);
}

// The layout of the recording when it is known and one for these ranks.
std::optional<statistics::EplbConfig> RecordedLayout(const PlanFlags& flags,
                                                     const RecordedLoads& recorded) {
  if (recorded.layout.empty() || recorded.ep_size != flags.ep_size) return std::nullopt;
  const auto num_slots = static_cast<int32_t>(recorded.layout.begin()->second.size());
  return statistics::EplbConfig{.num_slots = num_slots, .layers = recorded.layout};
}

// Before anything is read.
void CheckFetchPrice(const PlanFlags& flags) {
  if (flags.fetch_price && !eplb::FindPolicy(flags.policy).weighs_fetches)
    Throw(ErrorKind::kInvalid, "--fetch_price {} with --policy {}; allowed: {}", *flags.fetch_price,
          flags.policy, fmt::join(eplb::PolicyNames(&eplb::Policy::weighs_fetches), ", "));
}

// Slots of another number or on other ranks have nothing that could stay.
void CheckLayoutSizes(const PlanFlags& flags, const RecordedLoads& recorded) {
  if (!flags.fetch_price) return;
  if (recorded.layout.empty())
    Throw(ErrorKind::kInvalid,
          "--fetch_price {} needs --eplb_config, the layout that fetches start from",
          *flags.fetch_price);
  const auto num_slots = static_cast<int32_t>(recorded.layout.begin()->second.size());
  if (num_slots != flags.num_slots || recorded.ep_size != flags.ep_size)
    Throw(ErrorKind::kInvalid,
          "--fetch_price {}: {} has {} slots on {} ranks; --num_slots is {} and --ep_size {}, "
          "which must be the same",
          *flags.fetch_price, flags.loads.statistics.eplb_config.value_or(flags.loads.Source()),
          num_slots, recorded.ep_size, flags.num_slots, flags.ep_size);
}

std::vector<LayerPlan> StartPlans(const PlanFlags& flags, const RecordedLoads& recorded) {
  const std::optional<statistics::EplbConfig> layout = RecordedLayout(flags, recorded);
  const statistics::EplbTarget target{.num_experts = recorded.num_experts,
                                      .ep_size = flags.ep_size};
  std::vector<LayerPlan> plans;
  for (const auto& [layer, loads] : recorded.layers) {
    LayerPlan& plan = plans.emplace_back();
    plan.layer = layer;
    plan.loads = &loads;
    plan.has_layout = layout.has_value();
    plan.now =
        layout ? statistics::LayerPlacement(
                     *layout, layer, target,
                     flags.loads.statistics.eplb_config.value_or(flags.loads.Source()))
               : eplb::ContiguousPlacement(recorded.num_experts, flags.num_slots, flags.ep_size);
  }
  return plans;
}

// Layers are independent: any thread plans any layer, and the result does not depend on which.
std::vector<LayerPlan> PlanLayers(const PlanFlags& flags, const RecordedLoads& recorded) {
  const eplb::Policy& policy = eplb::FindPolicy(flags.policy);
  std::vector<LayerPlan> plans = StartPlans(flags, recorded);
  ForEachLayer(plans.size(), [&](size_t i) { MakePlan(flags, policy, plans[i]); });
  return plans;
}

// Before and after on the same ranks, on iterations that the plan has not seen; null and a word why
// where there are too few.
Json TellHeldOut(const PlanFlags& flags, const RecordedLoads& recorded,
                 const std::vector<LayerPlan>& plans, bool splits_by_counts) {
  const eplb::Policy& policy = eplb::FindPolicy(flags.policy);
  const auto held_out =
      JudgeOnHeldOut(recorded, plans, splits_by_counts,
                     [&](const LayerPlan& half) { return PlacementOf(flags, policy, half); });
  if (!held_out) {
    LogInfo(
        "figures are of the iterations that the plan was made from: {} recorded ones or more are "
        "needed to hold some out",
        kFewestHalves);
    return nullptr;
  }
  const bool has_layout = !plans.empty() && plans.front().has_layout;
  LogInfo(
      "held out: planned from the first half of the iterations, --policy {} leaves an imbalance "
      "ratio of {:.3f} on the second, {} {:.3f} ({} split, {} of {} layers)",
      flags.policy, held_out->planned, has_layout ? "the layout in use" : "experts in order",
      held_out->now, splits_by_counts ? "optimal" : "even", held_out->num_layers, plans.size());
  return {{"imbalance_now", held_out->now},
          {"imbalance_planned", held_out->planned},
          {"num_layers", held_out->num_layers}};
}

void WarnOfLayersWithoutLoad(const std::vector<LayerPlan>& plans) {
  std::vector<int32_t> layers;
  for (const LayerPlan& plan : plans)
    if (!plan.has_load) layers.push_back(plan.layer);
  if (!layers.empty())
    LogWarn(
        "no load was recorded for layers {}: their experts are placed as for equal loads (--layers "
        "leaves layers without experts out)",
        fmt::join(layers, ", "));
}

// Formats with a row for every layer of the model have rows of zeros for the dense layers that many
// models begin with. Takes these out and returns them, unless --layers says which rows to take.
std::vector<int32_t> LeaveOutDenseLayers(const LoadFlags& flags, RecordedLoads& recorded) {
  std::vector<int32_t> dense;
  const bool has_all_rows = !flags.loads.empty() && !flags.loads.ends_with(".csv");
  if (!has_all_rows || !flags.layers.empty()) return dense;
  const auto has_load = [](const auto& layer) { return eplb::HasLoad(layer.second.Sum()); };
  const auto first = std::find_if(recorded.layers.begin(), recorded.layers.end(), has_load);
  if (first == recorded.layers.end()) return dense;
  for (auto layer = recorded.layers.begin(); layer != first; ++layer) dense.push_back(layer->first);
  recorded.layers.erase(recorded.layers.begin(), first);
  if (!dense.empty())
    LogInfo(
        "{}: layers {} have no load: taken for dense layers and left out (--layers 0-{} plans "
        "them, too)",
        flags.loads, fmt::join(dense, ", "), recorded.layers.rbegin()->first);
  return dense;
}

void Plan(PlanFlags flags) {
  const bool has_policy = !flags.policy.empty();
  if (!has_policy) flags.policy = eplb::GreedyPolicy().name;
  CheckNodeFlags(flags.nodes, "--policy", {flags.policy});
  CheckFetchPrice(flags);
  CheckPlacementOutput(flags.output, FilesOf(flags.loads));
  RecordedLoads recorded = ReadRecordedLoads(flags.loads);
  const std::vector<int32_t> left_out = LeaveOutDenseLayers(flags.loads, recorded);
  const TargetEngine engine = ChooseEngine(flags.engine, recorded.engine, flags.loads.Source());
  const RankChoice ranks = ChooseRanks(
      {{flags.ep_size, "--ep_size"}, {EpSizeOf(flags.ep_size, recorded), recorded.ep_size_from}});
  flags.ep_size = ranks.ep_size;
  LogInfo("{}; {} ranks: {}", engine.Sentence(), ranks.ep_size, ranks.from);
  if (flags.num_slots == 0) flags.num_slots = recorded.num_experts;
  CheckNumSlots(recorded.num_experts, flags.num_slots, flags.ep_size);
  CheckLayoutSizes(flags, recorded);

  const std::vector<LayerPlan> plans = PlanLayers(flags, recorded);
  statistics::EplbConfig config{.num_slots = flags.num_slots,
                                .layer_updates_per_iter = flags.layer_updates_per_iter};
  // The default's files equal those of TensorRT-LLM's generator byte for byte.
  if (flags.policy != eplb::GreedyPolicy().name) config.planned_ep_size = flags.ep_size;
  for (const LayerPlan& plan : plans) config.SetLayer(plan.layer, plan.placement);
  statistics::WriteEplbYaml(flags.output.path, config);
  WarnOfLayersWithoutLoad(plans);
  if (!has_policy && !engine.SplitsByCounts())
    TellEvenGain(recorded, {.num_slots = flags.num_slots, .num_ranks = flags.ep_size}, flags.seed);
  const PlanContext context{flags.policy, flags.num_slots, flags.ep_size, flags.fetch_price};
  Json document = PlanJson(context, plans, left_out);
  document["engine"] = engine.traits ? std::string(engine.traits->name) : "";
  document["split"] = formats::SplitName(engine.split);
  document["ep_size_from"] = ranks.from;
  document["held_out"] = TellHeldOut(flags, recorded, plans, engine.SplitsByCounts());
  PrintPlacementReport(flags.output,
                       flags.output.json ? DumpJson(document, 2) + "\n" : PlanText(context, plans));
}

std::string PolicyHelp() {
  std::string help = "how experts are placed:";
  for (const eplb::Policy& policy : eplb::Policies())
    help += fmt::format(" {} ({});", policy.name, policy.summary);
  help.pop_back();
  return help + fmt::format(" (default: {})", eplb::GreedyPolicy().name);
}

}  // namespace

void AddEplbPlan(Command group) {
  const Command command =
      group.Subcommand("plan", "make a placement file (EPLB YAML) from recorded loads");
  PlanFlags& flags = command.Runs<PlanFlags>(Plan);
  AddLoadFlags(command, flags.loads);
  AddTargetEngineFlags(command, flags.engine);
  command.Add("--ep-size", flags.ep_size, "ranks (default: those that recorded)").Positive();
  command
      .Add("--num-slots", flags.num_slots, "slots of all ranks per layer (default: one per expert)")
      .Positive();
  command.Add("--policy", flags.policy, PolicyHelp());
  AddNodeFlags(command, flags.nodes);
  command
      .Add("--layer-updates-per-iter", flags.layer_updates_per_iter,
           "written to the file: layers the engine may re-place per iteration, 0 = static")
      .Range(0, statistics::kMaxEplbLayers)
      .ShowDefault();
  command
      .Add("--fetch-price", flags.fetch_price,
           "about the mean imbalance that a fetched slot must gain over the layout of "
           "--eplb_config; for " +
               fmt::format("{} (default: 0)",
                           fmt::join(eplb::PolicyNames(&eplb::Policy::weighs_fetches), ", ")))
      .NonNegative();
  command.Add("--seed", flags.seed, "for policies that search at random").ShowDefault();
  AddPlacementOutput(command, flags.output);
}

}  // namespace wideload::apps
