// What a plan is worth on iterations that it has not seen: the figures of those it was made from
// flatter it.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "eplb_commands.h"
#include "eplb_plan_report.h"

namespace wideload::apps {

// Mean imbalance ratios over the second half of the iterations and some layers.
struct HeldOut {
  double now = 0;      // of the layout in use, or of experts in order
  double planned = 0;  // of placements planned from the first half
  int32_t num_layers = 0;
};

// `place` plans a layer from the loads it is given, which are half of those of `plans`.
// splits_by_counts: figures of the optimal split, else of the even one. None when a layer has less
// than kFewestHalves iterations with load, or the recording none at all.
inline constexpr int32_t kFewestHalves = 4;
std::optional<HeldOut> JudgeOnHeldOut(
    const RecordedLoads& recorded, const std::vector<LayerPlan>& plans, bool splits_by_counts,
    const std::function<eplb::Placement(const LayerPlan&)>& place);

}  // namespace wideload::apps
