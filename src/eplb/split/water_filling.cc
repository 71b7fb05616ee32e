#include "eplb/split/water_filling.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "eplb/placement/index.h"

namespace wideload::eplb {
namespace {

SplitCosts Checked(const Placement& placement, SplitCosts costs) {
  if (costs.rank_speed.empty()) costs.rank_speed.assign(Index(placement.num_ranks), 1.0);
  if (costs.rank_speed.size() != Index(placement.num_ranks))
    Throw(ErrorKind::kInvalid, "split costs: {} rank speeds; it must be one for each of {} ranks",
          costs.rank_speed.size(), placement.num_ranks);
  for (const double speed : costs.rank_speed)
    if (!(speed >= 0) || !std::isfinite(speed))
      Throw(ErrorKind::kInvalid, "split costs: a rank's speed is {}; it must be 0 or more", speed);
  if (!(costs.tokens_per_active_slot >= 0) || !std::isfinite(costs.tokens_per_active_slot))
    Throw(ErrorKind::kInvalid, "split costs: tokens_per_active_slot is {}; it must be 0 or more",
          costs.tokens_per_active_slot);
  return costs;
}

std::vector<bool> AliveRanks(const SplitCosts& costs) {
  std::vector<bool> alive;
  for (const double speed : costs.rank_speed) alive.push_back(speed > 0);
  return alive;
}

}  // namespace

WaterFilling::WaterFilling(const Placement& placement, const SplitCosts& costs)
    : costs_(Checked(placement, costs)),
      graph_(std::make_unique<SplitGraph>(MakeSplitGraph(placement, AliveRanks(costs_)))),
      flow_(*graph_, costs_.rank_speed),
      fixed_(Index(placement.num_ranks)),
      demand_(Index(graph_->num_shared())),
      rank_tokens_(Index(placement.num_ranks)),
      slot_tokens_(placement.slot_expert.size(), 0.0),
      closed_(Index(graph_->num_edges())),
      by_flow_(Index(graph_->num_edges())),
      open_(Index(graph_->num_shared())),
      total_speed_(std::accumulate(costs_.rank_speed.begin(), costs_.rank_speed.end(), 0.0)) {
  flow_.set_warm_start(true);
}

double WaterFilling::Solve(std::span<const double> loads) {
  const SplitGraph& graph = *graph_;
  WIDELOAD_CHECK(loads.size() == graph.single_rank.size(), "{} loads for {} experts", loads.size(),
                 graph.num_experts);
  const double slot_cost = costs_.tokens_per_active_slot;
  std::fill(fixed_.begin(), fixed_.end(), 0.0);
  unplaced_tokens_ = 0;
  for (size_t e = 0; e < loads.size(); ++e) {
    const int32_t rank = graph.single_rank[e];
    if (rank >= 0)
      fixed_[Index(rank)] += loads[e] + (loads[e] > 0 ? slot_cost : 0);
    else if (graph.shared_index[e] < 0)
      unplaced_tokens_ += loads[e];
  }
  for (size_t i = 0; i < demand_.size(); ++i) demand_[i] = loads[Index(graph.shared_expert[i])];
  if (slot_cost > 0) {
    CloseSlots();
  } else {
    flow_.Solve(fixed_, demand_);
  }
  const double busiest = BusiestCost();
  Collect(loads);
  return busiest;
}

double WaterFilling::BusiestCost() const {
  double busiest = 0;
  for (size_t r = 0; r < fixed_.size(); ++r)
    if (costs_.rank_speed[r] > 0)
      busiest = std::max(busiest, flow_.loads()[r] / costs_.rank_speed[r]);
  return busiest;
}

// Opens every slot, then closes, least used first, those without which the busiest rank is no
// busier.
void WaterFilling::CloseSlots() {
  const SplitGraph& graph = *graph_;
  const double slot_cost = costs_.tokens_per_active_slot;
  std::fill(closed_.begin(), closed_.end(), uint8_t{0});
  for (size_t i = 0; i < open_.size(); ++i)
    open_[i] = graph.edge_begin[i + 1] - graph.edge_begin[i];
  for (const int32_t rank : graph.edge_rank) fixed_[Index(rank)] += slot_cost;
  flow_.Solve(fixed_, demand_, closed_);
  double busiest = BusiestCost();
  std::iota(by_flow_.begin(), by_flow_.end(), 0);
  const std::span<const double> flow = flow_.flow();
  std::sort(by_flow_.begin(), by_flow_.end(), [&flow](int32_t a, int32_t b) {
    return flow[Index(a)] != flow[Index(b)] ? flow[Index(a)] < flow[Index(b)] : a < b;
  });
  for (const int32_t edge : by_flow_) {
    int32_t& open = open_[Index(graph.edge_shared[Index(edge)])];
    if (open == 1) continue;
    double& fixed = fixed_[Index(graph.edge_rank[Index(edge)])];
    closed_[Index(edge)] = 1;
    fixed -= slot_cost;
    flow_.Solve(fixed_, demand_, closed_);
    const double cost = BusiestCost();
    if (cost <= busiest) {
      busiest = cost;
      --open;
      continue;
    }
    closed_[Index(edge)] = 0;
    fixed += slot_cost;
  }
  flow_.Solve(fixed_, demand_, closed_);
}

void WaterFilling::Collect(std::span<const double> loads) {
  const SplitGraph& graph = *graph_;
  std::fill(rank_tokens_.begin(), rank_tokens_.end(), 0.0);
  for (size_t e = 0; e < loads.size(); ++e) {
    if (graph.single_rank[e] < 0) continue;
    rank_tokens_[Index(graph.single_rank[e])] += loads[e];
    slot_tokens_[Index(graph.single_slot[e])] = loads[e];
  }
  for (size_t e = 0; e < graph.edge_rank.size(); ++e) {
    rank_tokens_[Index(graph.edge_rank[e])] += flow_.flow()[e];
    slot_tokens_[Index(graph.edge_slot[e])] = flow_.flow()[e];
  }
}

double WaterFilling::imbalance() const {
  double sum = 0;
  for (size_t r = 0; r < fixed_.size(); ++r)
    if (costs_.rank_speed[r] > 0) sum += flow_.loads()[r];
  return sum > 0 ? std::max(0.0, BusiestCost() * total_speed_ / sum - 1) : 0.0;
}

double MeanOptimalImbalance(const Placement& placement, const BatchLoads& batches,
                            const std::vector<double>& rank_speed) {
  WaterFilling split(placement, {rank_speed, 0});
  double sum = 0;
  double weight = 0;
  for (int32_t i = 0; i < batches.size(); ++i) {
    split.Solve(batches.At(i));
    sum += batches.weights[static_cast<size_t>(i)] * split.imbalance();
    weight += batches.weights[static_cast<size_t>(i)];
  }
  return weight > 0 ? sum / weight : 0.0;
}

}  // namespace wideload::eplb
