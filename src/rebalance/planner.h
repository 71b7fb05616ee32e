// What decides online which experts the slots hold: one class per mode. Pure: the changes are a
// function of what Plan was given so far. Each object belongs to one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "eplb/placement/placement.h"
#include "rebalance/online_options.h"
#include "rebalance/placement_change.h"

namespace wideload::rebalance {

// What one iteration routed.
struct IterationCounts {
  int64_t iteration = 0;
  bool is_warmup = false;                  // its counts are no load to plan for
  std::span<const int32_t> routed_counts;  // [MoE layers * experts], tokens of all ranks
  bool is_asked = false;  // look at every layer now, whatever thresholds and turns say
};

class Planner {
 public:
  virtual ~Planner() = default;
  // The layers whose slots shall change after this iteration, ascending; often none. Iterations
  // come in increasing order; a caller that cannot keep up may leave some out.
  virtual std::vector<LayerChange> Plan(const IterationCounts& counts) = 0;
};

// `start` [MoE layers]: what the slots hold, all of the same sizes. Null for Mode::kOff.
// Errors: kInvalid for options out of range.
std::unique_ptr<Planner> MakePlanner(const OnlineOptions& options,
                                     const std::vector<eplb::Placement>& start);

}  // namespace wideload::rebalance
