// The flow problem under the split: shared experts' tokens onto ranks so that the most loaded rank
// of every component carries as little as any split allows. T is double (fractional tokens) or
// int64_t (whole tokens). Solving allocates nothing; one object per thread.
//
// Forests are solved by eliminating leaves; other graphs by water-filling one expert after the
// other, then augmenting paths. Both raise the level of a component only to (tokens confined to a
// set of ranks) / (speed of these ranks), which no split can be below: when the flow fits, the
// level is the optimum (discrete Newton on the minimum cut).
#pragma once

#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include "eplb/placement/index.h"
#include "eplb/split/split_graph.h"

namespace wideload::eplb {

template <class T>
class BalanceFlow {
 public:
  // `graph` must outlive this object. rank_speed [num_ranks] (empty: all 1): a rank of speed 0.5
  // gets half the tokens; 0 only for ranks without edges and single experts.
  explicit BalanceFlow(const SplitGraph& graph, std::vector<double> rank_speed = {});

  // Fills flow, loads and levels. `fixed` [num_ranks] tokens of single experts, `demand`
  // [num_shared] tokens of shared ones; all >= 0. A rank's capacity is level x speed, for whole
  // tokens rounded up. Edges e with disabled[e] carry nothing (empty: none; every expert keeps at
  // least one; never on the forest path).
  void Solve(std::span<const T> fixed, std::span<const T> demand,
             std::span<const uint8_t> disabled = {});

  // Water-filling starts from the last solution's shares (other graphs than forests only); the
  // result is then a function of all calls so far, no longer of the last one alone.
  void set_warm_start(bool warm_start) { warm_start_ = warm_start; }

  std::span<const T> flow() const { return flow_; }   // [num_edges]
  std::span<const T> loads() const { return load_; }  // [num_ranks]
  double speed(int32_t rank) const { return speed_[static_cast<size_t>(rank)]; }

 private:
  T CapacityOf(int32_t rank) const;
  void StartLevels(std::span<const T> fixed, std::span<const T> demand);

  void StartPass(std::span<const T> fixed);
  bool EliminateLeaves(std::span<const T> fixed, std::span<const T> demand);
  void FillTreeExpert(int32_t shared, T demand);
  void FillCoreLeaves(int32_t shared, T demand);
  bool RaiseLevel(int32_t rank);

  void SolveGeneral(std::span<const T> fixed, std::span<const T> demand);
  void StartFill();
  double FillExpert(int32_t shared, double demand);
  void WaterFill();
  void RoundFills();
  void Augment();
  bool FindDistances();
  T Push(int32_t rank, T amount);
  bool RaiseConfinedLevels();
  bool Enabled(int32_t edge) const { return disabled_.empty() || !disabled_[Index(edge)]; }
  // Whether water-filling decides the edge; the others belong to leaves.
  bool Fillable(int32_t edge) const {
    return disabled_.empty() ? graph_.edge_in_core[Index(edge)] != 0 : Enabled(edge);
  }

  const SplitGraph& graph_;
  std::vector<double> speed_;
  bool uniform_speed_;
  bool warm_start_ = false;
  std::span<const uint8_t> disabled_;
  T tolerance_ = 0;
  std::vector<T> flow_, load_, capacity_;
  std::vector<double> level_, level_speed_;
  std::vector<double> set_load_, set_speed_;  // leaf elimination: the full set below a rank
  std::vector<T> fill_demand_;                // [num_shared] what leaves do not take
  std::vector<int32_t> fill_experts_;         // those with an edge to fill
  std::vector<double> fill_, fill_load_;      // water-filling, fractional
  std::vector<int32_t> fill_order_;           // edges of one expert by load
  std::vector<int32_t> distance_, cursor_, queue_;
  std::vector<uint8_t> confined_;
};

extern template class BalanceFlow<double>;
extern template class BalanceFlow<int64_t>;

}  // namespace wideload::eplb
