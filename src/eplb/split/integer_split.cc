#include "eplb/split/integer_split.h"

#include <algorithm>

#include "base/error.h"

namespace wideload::eplb {

IntegerSplit::IntegerSplit(const Placement& placement)
    : graph_(std::make_unique<SplitGraph>(MakeSplitGraph(placement))),
      flow_(*graph_),
      fixed_(static_cast<size_t>(placement.num_ranks)),
      demand_(static_cast<size_t>(graph_->num_shared())),
      quotas_(placement.slot_expert.size(), 0) {}

std::span<const int32_t> IntegerSplit::Solve(std::span<const int64_t> counts) {
  const SplitGraph& graph = *graph_;
  WIDELOAD_CHECK(counts.size() == graph.single_rank.size(), "{} counts for {} experts",
                 counts.size(), graph.num_experts);
  std::fill(fixed_.begin(), fixed_.end(), 0);
  for (size_t e = 0; e < counts.size(); ++e) {
    const int32_t rank = graph.single_rank[e];
    if (rank < 0) continue;
    fixed_[static_cast<size_t>(rank)] += counts[e];
    quotas_[static_cast<size_t>(graph.single_slot[e])] = static_cast<int32_t>(counts[e]);
  }
  for (size_t i = 0; i < demand_.size(); ++i)
    demand_[i] = counts[static_cast<size_t>(graph.shared_expert[i])];
  flow_.Solve(fixed_, demand_);
  for (size_t e = 0; e < graph.edge_slot.size(); ++e)
    quotas_[static_cast<size_t>(graph.edge_slot[e])] = static_cast<int32_t>(flow_.flow()[e]);
  return quotas_;
}

}  // namespace wideload::eplb
