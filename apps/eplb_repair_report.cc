#include "eplb_repair_report.h"

#include <fmt/format.h>

namespace wideload::apps {
namespace {

std::string CrossingText(const RepairContext& context, const RepairTotals& totals) {
  if (context.num_nodes == 1) return "";
  return fmt::format(
      "{} nodes: {} slots of all layers held experts of other nodes than their home, {} do now\n",
      context.num_nodes, totals.cross_slots_before, totals.cross_slots_after);
}

}  // namespace

RepairTotals TotalsOf(const std::vector<LayerRepair>& repairs, double until) {
  RepairTotals totals;
  for (const LayerRepair& repair : repairs) {
    totals.fetched_slots += repair.result.fetched_slots;
    totals.cross_slots_before += repair.result.cross_slots_before;
    totals.cross_slots_after += repair.result.cross_slots_after;
    totals.repair_ms += repair.repair_ms;
    if (!repair.has_load) continue;
    ++totals.num_layers;
    totals.num_above += repair.result.imbalance_after > until ? 1 : 0;
    totals.imbalance_before += repair.result.imbalance_before;
    totals.imbalance_after += repair.result.imbalance_after;
  }
  totals.imbalance_before /= totals.num_layers;
  totals.imbalance_after /= totals.num_layers;
  return totals;
}

Json RepairJson(const RepairContext& context, const std::vector<LayerRepair>& repairs) {
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
    if (context.num_nodes > 1) {
      row["cross_node_slots_before"] = repair.result.cross_slots_before;
      row["cross_node_slots_after"] = repair.result.cross_slots_after;
    }
    layers.push_back(std::move(row));
  }
  const RepairTotals totals = TotalsOf(repairs, context.until);
  return {{"ep_size", context.ep_size},
          {"split", context.split},
          {"num_slots", repairs.front().result.placement.num_slots()},
          {"dead_ranks", context.dead_ranks},
          {"until", context.until},
          {"layers", layers},
          {"layers_above_until", totals.num_above},
          {"slots_fetched", totals.fetched_slots},
          {"slots_fetched_per_layer", totals.FetchedPerLayer()},
          {"imbalance_before", totals.imbalance_before},
          {"imbalance_after", totals.imbalance_after},
          {"repair_ms_per_layer", totals.repair_ms / static_cast<double>(repairs.size())}};
}

std::string RepairText(const RepairContext& context, const std::vector<LayerRepair>& repairs) {
  std::string text = fmt::format(
      "Imbalance ratio under {} split of each batch, mean over batches; slots whose expert a rank "
      "must fetch.\n{:>6} {:>8} {:>8} {:>8} {:>9}\n",
      context.splits_evenly ? "an even" : "the optimal", "layer", "before", "after", "fetched",
      "repair ms");
  for (const LayerRepair& repair : repairs)
    text +=
        repair.has_load
            ? fmt::format("{:>6} {:>8.4f} {:>8.4f} {:>8} {:>9.2f}\n", repair.layer,
                          repair.result.imbalance_before, repair.result.imbalance_after,
                          repair.result.fetched_slots, repair.repair_ms)
            : fmt::format("{:>6} {:>8} {:>8} {:>8} {:>9.2f}  no load recorded: left as it is\n",
                          repair.layer, "-", "-", repair.result.fetched_slots, repair.repair_ms);
  const RepairTotals totals = TotalsOf(repairs, context.until);
  return text +
         fmt::format("{:>6} {:>8.4f} {:>8.4f} {:>8} {:>9.2f}\n", "all", totals.imbalance_before,
                     totals.imbalance_after, totals.fetched_slots, totals.repair_ms) +
         fmt::format("{} layers with load; {:.2f} slots fetched per layer\n", totals.num_layers,
                     totals.FetchedPerLayer()) +
         CrossingText(context, totals);
}

}  // namespace wideload::apps
