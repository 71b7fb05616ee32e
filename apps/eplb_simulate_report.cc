#include "eplb_simulate_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "eplb/placement/even_split.h"
#include "eplb/replay/placement_figures.h"

namespace wideload::apps {
namespace {

using namespace eplb;

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

Json ResultJson(const SimulationContext& context, const std::vector<LayerOutcome>& outcomes,
                size_t index) {
  const RunOfLayers run(outcomes, index);
  const auto imbalance = [](const SimulatedRun& r) -> const auto& { return r.imbalance; };
  const MeanAndP99 summary = run.Summary(imbalance);
  double plan_ms = 0;
  for (const LayerOutcome& outcome : outcomes)
    plan_ms +=
        outcome.plan_ms[index / context.splits.size()] / static_cast<double>(outcomes.size());
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
  if (context.has_dead_ranks)
    result["slots_fetched_first_per_layer"] =
        run.Mean([](const SimulatedRun& r) { return r.slots_fetched_first; });
  if (context.num_nodes > 1 && !context.has_dead_ranks)
    result["cross_node_replicas_per_layer"] = run.Mean(
        [&](const SimulatedRun& r) { return CrossNodeReplicas(r.planned, context.num_nodes); });
  if (result.contains("cross_node_replicas_per_layer") && context.repairs)
    result["cross_node_replicas_repaired_per_layer"] = run.Mean(
        [&](const SimulatedRun& r) { return CrossNodeReplicas(r.last, context.num_nodes); });
  if (context.has_shared_expert) result["shared_expert"] = SharedJson(run);
  return result;
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

}  // namespace

Json SimulationJson(const SimulationContext& context, const std::vector<LayerOutcome>& outcomes) {
  const double layers = static_cast<double>(outcomes.size());
  Json results = Json::array();
  for (size_t r = 0; r < outcomes.front().runs.size(); ++r)
    results.push_back(ResultJson(context, outcomes, r));
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
              {"layers_without_load", context.layers_without_load},
              {"iterations", outcomes.front().runs.front().imbalance.size()},
              {"num_experts", context.num_experts},
              {"ep_size", context.ep_size},
              {"num_slots", context.num_slots},
              {"seed", context.seed},
              {"routed_tokens_per_iteration", choices},
              {"floor", floor},
              {"clairvoyant", nullptr},
              {"component_bound", component_bound}};
  if (!clairvoyant.empty()) report["clairvoyant"] = Summarise(std::move(clairvoyant)).mean;
  return report;
}

std::string SimulationText(const SimulationContext& context, const Json& report) {
  std::string text = fmt::format("{:<14} {:<19} {:>9} {:>8} {:>8} {:>10} {:>9}", "policy", "split",
                                 "imbalance", "p99", "fetched", "components", "plan ms");
  if (context.has_dead_ranks) text += fmt::format(" {:>9}", "at death");
  if (context.num_nodes > 1 && !context.has_dead_ranks) text += fmt::format(" {:>9}", "crossing");
  if (context.num_nodes > 1 && !context.has_dead_ranks && context.repairs)
    text += fmt::format(" {:>9}", "repaired");
  if (context.has_shared_expert)
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
      report["routed_tokens_per_iteration"].get<double>(), context.ep_size, context.num_slots,
      report["floor"].get<double>(), report["component_bound"].get<double>());
  if (!report["clairvoyant"].is_null())
    text += fmt::format(", clairvoyant {:.4f}", report["clairvoyant"].get<double>());
  if (std::find(context.splits.begin(), context.splits.end(), "optimal") != context.splits.end())
    text += above_ceil == 0 ? "\noptimal: the busiest rank has the fractional optimum rounded up"
                            : "\noptimal: MORE than the fractional optimum rounded up";
  return text + "\n";
}

}  // namespace wideload::apps
