// What `wideload eplb repair` says of the layers it changed. Pure; thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "eplb/search/repair.h"

namespace wideload::apps {

struct LayerRepair {
  int32_t layer = 0;
  bool has_load = false;
  eplb::RepairResult result;
  double repair_ms = 0;  // processor time
};

// Means of imbalances over the layers with load, sums of the rest over all.
struct RepairTotals {
  int32_t num_layers = 0;  // with load
  int32_t num_above = 0;   // of them, those that stay above `until`
  double imbalance_before = 0;
  double imbalance_after = 0;
  int64_t fetched_slots = 0;
  int64_t cross_slots_before = 0;
  int64_t cross_slots_after = 0;
  double repair_ms = 0;

  double FetchedPerLayer() const { return static_cast<double>(fetched_slots) / num_layers; }
};
RepairTotals TotalsOf(const std::vector<LayerRepair>& repairs, double until);

// What the repairs were made for.
struct RepairContext {
  int32_t ep_size = 0;
  std::string split;  // as typed or as the engine has it
  bool splits_evenly = false;
  double until = 0;
  std::vector<int32_t> dead_ranks;
  int32_t num_nodes = 1;
};
Json RepairJson(const RepairContext& context, const std::vector<LayerRepair>& repairs);
std::string RepairText(const RepairContext& context, const std::vector<LayerRepair>& repairs);

}  // namespace wideload::apps
