// What `wideload eplb plan` says of the layers it placed. Pure; thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "eplb/placement/batch_loads.h"
#include "eplb/placement/placement.h"
#include "eplb/replay/placement_figures.h"

namespace wideload::apps {

struct LayerPlan {
  int32_t layer = 0;
  const eplb::BatchLoads* loads = nullptr;
  eplb::Placement now;      // the layout the loads were recorded with, or contiguous
  bool has_layout = false;  // `now` is that of the recording
  eplb::Placement placement;
  eplb::PlacementFigures figures_now;
  eplb::PlacementFigures figures;
  eplb::PlacementBounds bounds;
  int32_t slots_changed = 0;
  bool has_load = false;
  double plan_ms = 0;  // processor time
};

// What was planned for.
struct PlanContext {
  std::string policy;
  int32_t num_slots = 0;
  int32_t ep_size = 0;
  std::optional<double> fetch_price;
};
std::string PlanText(const PlanContext& context, const std::vector<LayerPlan>& plans);
// left_out: layers of the source that were taken for dense ones.
Json PlanJson(const PlanContext& context, const std::vector<LayerPlan>& plans,
              const std::vector<int32_t>& left_out);

}  // namespace wideload::apps
