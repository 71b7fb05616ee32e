// What the engine asks of its ranks in one iteration: plain values, valid while it lasts.
#pragma once

#include <cstdint>
#include <span>

#include "moe/placement_table.h"
#include "rebalance/placement_change.h"
#include "runtime/scheduler.h"

namespace wideload::runtime {

// Of all ranks.
struct TeamStep {
  const StepPlan& plan;
  int64_t iteration = 0;
  const rebalance::PlacementChange* change = nullptr;  // that it announces; null: none
};

// Of one rank.
struct RankStep {
  std::span<const PlanEntry> entries;
  int64_t iteration = 0;
  moe::SharedPlacements announced = {};  // the table after the change that it announces, or null
};

}  // namespace wideload::runtime
