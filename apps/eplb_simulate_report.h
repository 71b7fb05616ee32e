// What `wideload eplb simulate` says of the layers it replayed. Pure; thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "eplb/replay/simulate.h"

namespace wideload::apps {

struct LayerOutcome {
  std::vector<eplb::SimulatedRun> runs;  // policies outermost, then splits
  std::vector<double> plan_ms;           // [policies]
  std::vector<double> clairvoyant;
  double component_bound = 0;
  double floor = 0;
  double choices = 0;  // routed tokens of a measured iteration, mean
};

// What was replayed.
struct SimulationContext {
  int32_t num_experts = 0;
  int32_t ep_size = 0;
  int32_t num_slots = 0;
  int32_t num_nodes = 1;
  uint64_t seed = 1;
  std::vector<std::string> splits;
  std::vector<int32_t> layers_without_load;
  bool repairs = false;            // placements are changed after each iteration
  bool has_dead_ranks = false;     // they die when measuring begins
  bool has_shared_expert = false;  // its rows are replayed, too
};
// Over all layers; one result per policy and split.
Json SimulationJson(const SimulationContext& context, const std::vector<LayerOutcome>& outcomes);
// `report` as a table.
std::string SimulationText(const SimulationContext& context, const Json& report);

}  // namespace wideload::apps
