// What the engine asks of its ranks in one iteration: plain values, valid while it lasts.
#pragma once

#include <algorithm>
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

  // Of the rank that has most to compute.
  int64_t most_tokens() const;
};

// Of one rank.
struct RankStep {
  std::span<const PlanEntry> entries;
  int64_t iteration = 0;
  int64_t most_tokens = 0;               // that any rank computes in it
  moe::SharedPlacements announced = {};  // the table after the change that it announces, or null
};

inline int64_t TeamStep::most_tokens() const {
  int64_t most = 0;
  for (const auto& entries : plan.ranks) {
    int64_t tokens = 0;
    for (const PlanEntry& entry : entries) tokens += entry.count;
    most = std::max(most, tokens);
  }
  return most;
}

}  // namespace wideload::runtime
