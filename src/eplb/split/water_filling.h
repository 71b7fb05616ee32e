// The fractional optimal split of one placement: how many tokens of each expert every slot gets so
// that the busiest rank finishes as early as any split allows. One object per thread; after the
// first Solve nothing is allocated.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "eplb/placement/batch_loads.h"
#include "eplb/placement/placement.h"
#include "eplb/split/balance_flow.h"
#include "eplb/split/split_graph.h"

namespace wideload::eplb {

// What a rank's work costs: (tokens + tokens_per_active_slot x slots with tokens) / speed.
struct SplitCosts {
  std::vector<double> rank_speed;     // [num_ranks], each >= 0; empty: all 1; 0: a dead rank
  double tokens_per_active_slot = 0;  // >= 0; reading a slot's weights, in tokens
};

class WaterFilling {
 public:
  // Errors: kInvalid for a speed or slot cost that is negative or not finite, or a wrong number of
  // speeds.
  explicit WaterFilling(const Placement& placement, const SplitCosts& costs = {});

  // loads [num_experts], each >= 0. Returns the cost of the busiest rank. With a slot cost the
  // result is a local optimum (closing any one more slot would not help), without one the optimum.
  // Starts from the last solution where that helps.
  double Solve(std::span<const double> loads);

  std::span<const double> rank_tokens() const { return rank_tokens_; }  // [num_ranks]
  std::span<const double> slot_tokens() const { return slot_tokens_; }  // [num_slots]
  // (busiest - mean) / mean of the cost of ranks, as of the last Solve; dead ranks do not count.
  double imbalance() const;
  // Tokens of experts that have no live slot.
  double unplaced_tokens() const { return unplaced_tokens_; }
  const SplitGraph& graph() const { return *graph_; }

 private:
  double BusiestCost() const;
  void CloseSlots();
  void Collect(std::span<const double> loads);

  SplitCosts costs_;
  std::unique_ptr<SplitGraph> graph_;  // on the heap: flow_ points to it when this object moves
  BalanceFlow<double> flow_;
  std::vector<double> fixed_, demand_, rank_tokens_, slot_tokens_;
  std::vector<uint8_t> closed_;   // [num_edges] with a slot cost: slots that stay idle
  std::vector<int32_t> by_flow_;  // [num_edges] scratch
  std::vector<int32_t> open_;     // [num_shared] slots not closed
  double unplaced_tokens_ = 0;
  double total_speed_ = 0;
};

// Weighted mean over batches of the imbalance under the optimal split. rank_speed [num_ranks], or
// empty for 1 each; a rank with 0 computes nothing.
double MeanOptimalImbalance(const Placement& placement, const BatchLoads& batches,
                            const std::vector<double>& rank_speed = {});

}  // namespace wideload::eplb
