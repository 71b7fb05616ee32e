// Whole tokens per slot for one chunk: the most loaded rank gets the fractional optimum rounded up,
// which is the least any whole split can give it. A pure function of placement and counts. One
// object per thread; steady state allocates nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "eplb/placement/placement.h"
#include "eplb/split/balance_flow.h"
#include "eplb/split/split_graph.h"

namespace wideload::eplb {

class IntegerSplit {
 public:
  // For a valid placement, which need not outlive this object.
  explicit IntegerSplit(const Placement& placement);

  // counts [num_experts]: tokens of each expert, all sources together, each >= 0. Returns quotas
  // [num_slots], which add up to counts per expert and stay valid until the next call. A second
  // slot of the same expert on one rank gets none.
  std::span<const int32_t> Solve(std::span<const int64_t> counts);

  const SplitGraph& graph() const { return *graph_; }
  std::span<const int64_t> rank_loads() const { return flow_.loads(); }  // of the last Solve

 private:
  std::unique_ptr<SplitGraph> graph_;  // on the heap: flow_ points to it when this object moves
  BalanceFlow<int64_t> flow_;
  std::vector<int64_t> fixed_, demand_;
  std::vector<int32_t> quotas_;
};

}  // namespace wideload::eplb
