#include "eplb_plan_report.h"

#include <fmt/format.h>

#include <algorithm>

namespace wideload::apps {
namespace {

// One row of the table: a layer, or the means (of imbalances, bounds and components) and sums (of
// slots and time) over layers.
struct PlanRow {
  double now_even = 0;
  double now_optimal = 0;
  double planned_even = 0;
  double planned_optimal = 0;
  double replica_capacity_bound = 0;
  double component_bound = 0;
  double num_components_now = 0;
  double num_components = 0;
  int64_t duplicate_slots = 0;
  int64_t slots_changed = 0;
  double plan_ms = 0;
};

PlanRow RowOf(const LayerPlan& plan) {
  return {.now_even = plan.figures_now.imbalance_even,
          .now_optimal = plan.figures_now.imbalance_optimal,
          .planned_even = plan.figures.imbalance_even,
          .planned_optimal = plan.figures.imbalance_optimal,
          .replica_capacity_bound = plan.bounds.replica_capacity,
          .component_bound = plan.bounds.component,
          .num_components_now = static_cast<double>(plan.figures_now.num_components),
          .num_components = static_cast<double>(plan.figures.num_components),
          .duplicate_slots = plan.figures.duplicate_slots,
          .slots_changed = plan.slots_changed,
          .plan_ms = plan.plan_ms};
}

// Means over the layers with load, sums over all.
PlanRow TotalOf(const std::vector<LayerPlan>& plans) {
  PlanRow total;
  const auto num_loaded = static_cast<double>(std::count_if(
      plans.begin(), plans.end(), [](const LayerPlan& plan) { return plan.has_load; }));
  for (const LayerPlan& plan : plans) {
    const PlanRow row = RowOf(plan);
    for (double PlanRow::*mean :
         {&PlanRow::now_even, &PlanRow::now_optimal, &PlanRow::planned_even,
          &PlanRow::planned_optimal, &PlanRow::replica_capacity_bound, &PlanRow::component_bound,
          &PlanRow::num_components_now, &PlanRow::num_components})
      if (plan.has_load) total.*mean += row.*mean / num_loaded;
    total.duplicate_slots += row.duplicate_slots;
    total.slots_changed += row.slots_changed;
    total.plan_ms += row.plan_ms;
  }
  return total;
}

std::string RowText(const std::string& label, const PlanRow& row) {
  return fmt::format(
      "{:>6} {:>8.4f} {:>8.4f} {:>8.4f} {:>8.4f} {:>8.4f} {:>9.4f} {:>6.4g} {:>6.4g} "
      "{:>10} {:>8} {:>9.2f}",
      label, row.now_even, row.now_optimal, row.planned_even, row.planned_optimal,
      row.replica_capacity_bound, row.component_bound, row.num_components_now, row.num_components,
      row.duplicate_slots, row.slots_changed, row.plan_ms);
}

Json RowJson(const PlanRow& row) {
  return {{"imbalance_now", row.now_even},
          {"imbalance_planned", row.planned_even},
          {"imbalance_now_optimal", row.now_optimal},
          {"imbalance_planned_optimal", row.planned_optimal},
          {"bound_mean", 0.0},
          {"bound_replica_capacity", row.replica_capacity_bound},
          {"bound_component", row.component_bound},
          {"num_components_now", row.num_components_now},
          {"num_components", row.num_components},
          {"duplicate_slots", row.duplicate_slots},
          {"slots_changed", row.slots_changed},
          {"plan_ms", row.plan_ms}};
}

}  // namespace

std::string PlanText(const PlanContext& context, const std::vector<LayerPlan>& plans) {
  std::string text = fmt::format(
      "{}: {} slots on {} ranks. Imbalance ratios under an even split and the optimal split of "
      "each\n"
      "batch, mean over the recorded iterations; bounds of any plan (component: an estimate for "
      "other\n"
      "batches of the kind; that of the mean is 0).\n"
      "{:>6} {:>17} {:>17} {:>18} {:>13} {:>10} {:>8} {:>9}\n"
      "{:>6} {:>8} {:>8} {:>8} {:>8} {:>8} {:>9} {:>6} {:>6} {:>10} {:>8} {:>9}\n",
      context.policy, context.num_slots, context.ep_size, "", "now", "planned", "bounds",
      "components", "duplicate", "slots", "plan", "layer", "even", "optimal", "even", "optimal",
      "replicas", "component", "now", "plan", "slots", "changed", "ms");
  for (const LayerPlan& plan : plans)
    text += RowText(fmt::to_string(plan.layer), RowOf(plan)) +
            (plan.has_load ? "\n" : "  no load recorded: placed as for equal loads\n");
  return text + RowText("all", TotalOf(plans)) + "\n";
}

Json PlanJson(const PlanContext& context, const std::vector<LayerPlan>& plans,
              const std::vector<int32_t>& left_out) {
  Json layers = Json::array();
  for (const LayerPlan& plan : plans) {
    Json row = RowJson(RowOf(plan));
    row["layer"] = plan.layer;
    row["has_load"] = plan.has_load;
    if (!plan.has_load) row["placed_as_for"] = "equal loads";
    layers.push_back(std::move(row));
  }
  Json document = RowJson(TotalOf(plans));
  document["policy"] = context.policy;
  document["ep_size"] = context.ep_size;
  document["num_slots"] = context.num_slots;
  if (context.fetch_price) document["fetch_price"] = *context.fetch_price;
  document["layers"] = std::move(layers);
  document["layers_left_out"] = left_out;
  return document;
}

}  // namespace wideload::apps
