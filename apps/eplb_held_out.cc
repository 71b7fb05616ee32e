#include "eplb_held_out.h"

#include <algorithm>

#include "eplb/replay/placement_figures.h"
#include "eplb_halves.h"

namespace wideload::apps {
namespace {

constexpr int32_t kMaxHeldOutLayers = 8;

double Imbalance(const eplb::Placement& placement, const eplb::BatchLoads& batches,
                 bool splits_by_counts) {
  const eplb::PlacementFigures figures = eplb::JudgePlacement(placement, batches);
  return splits_by_counts ? figures.imbalance_optimal : figures.imbalance_even;
}

}  // namespace

std::optional<HeldOut> JudgeOnHeldOut(
    const RecordedLoads& recorded, const std::vector<LayerPlan>& plans, bool splits_by_counts,
    const std::function<eplb::Placement(const LayerPlan&)>& place) {
  const std::vector<int32_t> layers = SampledLayers(recorded, kMaxHeldOutLayers);
  if (!recorded.has_batches || layers.empty()) return std::nullopt;
  std::vector<LayerPlan> halved;
  std::vector<Halves> halves;
  for (const LayerPlan& plan : plans)
    if (std::find(layers.begin(), layers.end(), plan.layer) != layers.end()) {
      halved.push_back(plan);
      halves.push_back(SplitInHalves(*plan.loads, Order::kInTime));
      if (halves.back().recorded.size() < kFewestHalves / 2) return std::nullopt;
    }
  std::vector<double> now(halved.size());
  std::vector<double> planned(halved.size());
  ForEachLayer(halved.size(), [&](size_t l) {
    halved[l].loads = &halves[l].recorded;
    now[l] = Imbalance(halved[l].now, halves[l].measured, splits_by_counts);
    planned[l] = Imbalance(place(halved[l]), halves[l].measured, splits_by_counts);
  });
  HeldOut result{.num_layers = static_cast<int32_t>(halved.size())};
  for (size_t l = 0; l < halved.size(); ++l) {
    result.now += now[l] / static_cast<double>(halved.size());
    result.planned += planned[l] / static_cast<double>(halved.size());
  }
  return result;
}

}  // namespace wideload::apps
