#include "rebalance/random_planner.h"

#include "eplb/placement/random.h"

namespace wideload::rebalance {

std::vector<LayerChange> RandomPlanner::Plan(const IterationCounts& counts) {
  std::vector<LayerChange> changes;
  eplb::Random seeds(seed_ ^ eplb::Random(static_cast<uint64_t>(counts.iteration)).Next());
  for (size_t layer = 0; layer < start_.size(); ++layer) {
    const eplb::Placement& sizes = start_[layer];
    changes.push_back(
        {static_cast<int32_t>(layer), eplb::RandomPlacement(sizes.num_experts, sizes.num_slots(),
                                                            sizes.num_ranks, seeds.Next())});
  }
  return changes;
}

}  // namespace wideload::rebalance
