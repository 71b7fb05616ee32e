// Mode::kRepair: placements are kept and mended, where a mending gains most.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "eplb/search/scenario_store.h"
#include "eplb/split/water_filling.h"
#include "rebalance/planner.h"

namespace wideload::rebalance {

// A layer is repaired once the imbalance of its recent iterations, each split as options say,
// exceeds options.threshold, until it is below options.target or no fetch gains enough any more;
// then it has to be twice as bad as that again. Layers share options.max_fetched_slots_per_iter:
// the highest predicted gain per fetched slot goes first. Where the load has become another one,
// what was met before it is forgotten.
class RepairPlanner : public Planner {
 public:
  // start [MoE layers]: what the slots hold.
  RepairPlanner(const OnlineOptions& options, std::vector<eplb::Placement> start);
  std::vector<LayerChange> Plan(const IterationCounts& counts) override;

 private:
  struct Layer {
    eplb::Placement now;                        // what the slots hold once all plans have effect
    std::unique_ptr<eplb::WaterFilling> split;  // the optimal one of `now`
    std::vector<std::vector<double>> recent;    // since the last change of load; the newest last
    std::vector<double> imbalances;             // of the first of `recent`, split for `now`
    bool is_repaired = false;                   // is over the threshold, not yet below the target
    double settled = 0;  // the imbalance that repair could not bring down any more under this load
  };
  // What a layer's repair would bring.
  struct Offer {
    size_t layer = 0;
    eplb::Placement placement;
    int32_t fetched_slots = 0;
    double gain = 0;
  };
  void Take(const IterationCounts& counts);
  void Place(Layer& layer, eplb::Placement placement) const;
  double Imbalance(Layer& layer, std::span<const double> counts) const;
  double RecentImbalance(Layer& layer) const;
  std::vector<Offer> MakeOffers();
  Offer Repair(size_t layer, int32_t max_fetched_slots);

  OnlineOptions options_;
  std::vector<Layer> layers_;
  int64_t num_repairs_ = 0;
};

}  // namespace wideload::rebalance
