// Mode::kRandom.
#pragma once

#include <vector>

#include "rebalance/planner.h"

namespace wideload::rebalance {

// Every layer anew after every iteration, warm-up or not; the placement depends on seed, iteration
// and layer alone.
class RandomPlanner : public Planner {
 public:
  // The same changes for the same seed.
  RandomPlanner(uint64_t seed, std::vector<eplb::Placement> start)
      : seed_(seed), start_(std::move(start)) {}
  std::vector<LayerChange> Plan(const IterationCounts& counts) override;

 private:
  uint64_t seed_;
  std::vector<eplb::Placement> start_;  // for the sizes
};

}  // namespace wideload::rebalance
