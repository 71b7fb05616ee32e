#include "eplb/split/balance_flow.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace wideload::eplb {
namespace {

// Water-filling stops when a sweep changes no rank by more than this share of the total, for whole
// tokens by more than kWholeSweepTolerance of one, or after kMaxSweeps; augmenting paths
// (balance_paths.cc) do the rest. They move single tokens as cheaply as a further sweep does.
constexpr double kSweepTolerance = 1e-5;
constexpr double kWholeSweepTolerance = 0.5;
constexpr int kMaxSweeps = 24;
// Fractional flow: what is smaller than this share of the total is rounding of doubles.
constexpr double kFlowTolerance = 1e-12;
// A fractional level x speed may miss the integer it means by this share.
constexpr double kCeilTolerance = 1e-12;

}  // namespace

template <class T>
BalanceFlow<T>::BalanceFlow(const SplitGraph& graph, std::vector<double> rank_speed)
    : graph_(graph), speed_(std::move(rank_speed)) {
  const size_t ranks = Index(graph.num_ranks);
  if (speed_.empty()) speed_.assign(ranks, 1.0);
  uniform_speed_ = std::all_of(speed_.begin(), speed_.end(), [](double s) { return s == 1.0; });
  flow_.resize(Index(graph.num_edges()));
  load_.resize(ranks);
  capacity_.resize(ranks);
  level_.resize(Index(graph.num_components));
  level_speed_.assign(Index(graph.num_components), 0.0);
  for (size_t r = 0; r < ranks; ++r) level_speed_[Index(graph.component[r])] += speed_[r];
  set_load_.resize(ranks);
  set_speed_.resize(ranks);
  distance_.resize(ranks);
  cursor_.resize(ranks);
  queue_.reserve(ranks);
  confined_.resize(ranks);
  if (graph.is_forest()) return;
  fill_.resize(Index(graph.num_edges()));
  fill_load_.resize(ranks);
  fill_order_.reserve(ranks);
  fill_demand_.resize(Index(graph.num_shared()));
  fill_experts_.reserve(Index(graph.num_shared()));
}

template <class T>
T BalanceFlow<T>::CapacityOf(int32_t rank) const {
  const double exact = level_[Index(graph_.component[Index(rank)])] * speed_[Index(rank)];
  if constexpr (std::is_integral_v<T>) {
    return static_cast<T>(
        std::ceil(uniform_speed_ ? exact : exact - kCeilTolerance * std::abs(exact)));
  } else {
    return exact;
  }
}

template <class T>
void BalanceFlow<T>::StartLevels(std::span<const T> fixed, std::span<const T> demand) {
  std::fill(level_.begin(), level_.end(), 0.0);
  T total = 0;
  for (int32_t r = 0; r < graph_.num_ranks; ++r) {
    level_[Index(graph_.component[Index(r)])] += static_cast<double>(fixed[Index(r)]);
    total += fixed[Index(r)];
  }
  for (int32_t i = 0; i < graph_.num_shared(); ++i) {
    const int32_t rank = graph_.edge_rank[Index(graph_.edge_begin[Index(i)])];
    level_[Index(graph_.component[Index(rank)])] += static_cast<double>(demand[Index(i)]);
    total += demand[Index(i)];
  }
  for (size_t c = 0; c < level_.size(); ++c)
    level_[c] = level_speed_[c] > 0 ? level_[c] / level_speed_[c] : 0.0;
  if constexpr (!std::is_integral_v<T>) tolerance_ = total * kFlowTolerance;
}

template <class T>
void BalanceFlow<T>::Solve(std::span<const T> fixed, std::span<const T> demand,
                           std::span<const uint8_t> disabled) {
  disabled_ = disabled;
  StartLevels(fixed, demand);
  if (graph_.is_forest() && disabled.empty()) {
    while (!EliminateLeaves(fixed, demand)) {
    }
    return;
  }
  SolveGeneral(fixed, demand);
}

// ---- forests ----------------------------------------------------------------------------------

// The set of full ranks that `rank` heads cannot carry its tokens below this level.
template <class T>
bool BalanceFlow<T>::RaiseLevel(int32_t rank) {
  double& level = level_[Index(graph_.component[Index(rank)])];
  const double needed = set_load_[Index(rank)] / set_speed_[Index(rank)];
  if (!(needed > level)) return false;
  level = needed;
  return true;
}

// Gives the ranks below a shared expert what they can take, and the rest to the rank above.
template <class T>
void BalanceFlow<T>::FillTreeExpert(int32_t shared, T demand) {
  const int32_t parent_edge = graph_.tree_parent_edge[Index(shared)];
  double set_load = static_cast<double>(demand);
  double set_speed = 0;
  for (int32_t e = graph_.edge_begin[Index(shared)]; e < graph_.edge_begin[Index(shared) + 1];
       ++e) {
    if (e == parent_edge) continue;
    const size_t rank = Index(graph_.edge_rank[Index(e)]);
    const T take = std::clamp<T>(capacity_[rank] - load_[rank], 0, demand);
    flow_[Index(e)] = take;
    load_[rank] += take;
    demand -= take;
    set_load += set_load_[rank];
    set_speed += set_speed_[rank];
  }
  flow_[Index(parent_edge)] = demand;
  if (demand <= 0) return;
  const size_t parent = Index(graph_.edge_rank[Index(parent_edge)]);
  load_[parent] += demand;
  set_load_[parent] += set_load;
  set_speed_[parent] += set_speed;
}

// What is left of a core expert after its leaves took what they can is to be filled.
template <class T>
void BalanceFlow<T>::FillCoreLeaves(int32_t shared, T demand) {
  for (int32_t e = graph_.edge_begin[Index(shared)]; e < graph_.edge_begin[Index(shared) + 1];
       ++e) {
    if (graph_.edge_in_core[Index(e)]) continue;
    const size_t rank = Index(graph_.edge_rank[Index(e)]);
    const T take = std::clamp<T>(capacity_[rank] - load_[rank], 0, demand);
    flow_[Index(e)] = take;
    load_[rank] += take;
    demand -= take;
  }
  fill_demand_[Index(shared)] = demand;
}

template <class T>
void BalanceFlow<T>::StartPass(std::span<const T> fixed) {
  for (int32_t r = 0; r < graph_.num_ranks; ++r) {
    load_[Index(r)] = fixed[Index(r)];
    capacity_[Index(r)] = CapacityOf(r);
    set_load_[Index(r)] = static_cast<double>(fixed[Index(r)]);
    set_speed_[Index(r)] = speed_[Index(r)];
  }
}

// One pass at the present levels. Returns whether every rank kept within its capacity; else levels
// were raised.
template <class T>
bool BalanceFlow<T>::EliminateLeaves(std::span<const T> fixed, std::span<const T> demand) {
  StartPass(fixed);
  for (const int32_t shared : graph_.tree_order) FillTreeExpert(shared, demand[Index(shared)]);
  bool raised = false;
  for (int32_t r = 0; r < graph_.num_ranks; ++r)
    if (load_[Index(r)] > capacity_[Index(r)] + tolerance_) raised |= RaiseLevel(r);
  return !raised;
}

// ---- other graphs -----------------------------------------------------------------------------

// Shares one expert's tokens over its ranks so that those that get any end equally full. Returns
// the largest change of a rank.
template <class T>
double BalanceFlow<T>::FillExpert(int32_t shared, double demand) {
  fill_order_.clear();
  for (int32_t e = graph_.edge_begin[Index(shared)]; e < graph_.edge_begin[Index(shared) + 1];
       ++e) {
    if (!Fillable(e)) continue;
    fill_load_[Index(graph_.edge_rank[Index(e)])] -= fill_[Index(e)];
    fill_order_.push_back(e);
  }
  const auto height = [this](int32_t e) {
    const size_t rank = Index(graph_.edge_rank[Index(e)]);
    return fill_load_[rank] / speed_[rank];
  };
  for (size_t i = 1; i < fill_order_.size(); ++i)
    for (size_t j = i; j > 0 && height(fill_order_[j]) < height(fill_order_[j - 1]); --j)
      std::swap(fill_order_[j], fill_order_[j - 1]);
  double load = demand;
  double speed = 0;
  double level = 0;
  for (size_t i = 0; i < fill_order_.size(); ++i) {
    const size_t rank = Index(graph_.edge_rank[Index(fill_order_[i])]);
    if (i > 0 && level <= height(fill_order_[i])) break;
    load += fill_load_[rank];
    speed += speed_[rank];
    level = load / speed;
  }
  double change = 0;
  for (const int32_t e : fill_order_) {
    const size_t rank = Index(graph_.edge_rank[Index(e)]);
    const double take = std::clamp(level * speed_[rank] - fill_load_[rank], 0.0, demand);
    change = std::max(change, std::abs(take - fill_[Index(e)]));
    fill_[Index(e)] = take;
    fill_load_[rank] += take;
  }
  return change;
}

// Shares to start from: nothing, or the last solution's in proportion.
template <class T>
void BalanceFlow<T>::StartFill() {
  for (size_t r = 0; r < load_.size(); ++r) fill_load_[r] = static_cast<double>(load_[r]);
  if (!warm_start_) {
    std::fill(fill_.begin(), fill_.end(), 0.0);
    return;
  }
  for (const int32_t i : fill_experts_) {
    double sum = 0;
    const int32_t end = graph_.edge_begin[Index(i) + 1];
    for (int32_t e = graph_.edge_begin[Index(i)]; e < end; ++e) {
      if (!Fillable(e)) fill_[Index(e)] = 0;
      sum += fill_[Index(e)];
    }
    const double scale = sum > 0 ? static_cast<double>(fill_demand_[Index(i)]) / sum : 0.0;
    for (int32_t e = graph_.edge_begin[Index(i)]; e < end; ++e) {
      fill_[Index(e)] *= scale;
      fill_load_[Index(graph_.edge_rank[Index(e)])] += fill_[Index(e)];
    }
  }
}

template <class T>
void BalanceFlow<T>::WaterFill() {
  StartFill();
  double total = 0;
  for (const double load : level_) total += load;
  total *= static_cast<double>(load_.size()) / static_cast<double>(level_.size());
  double tolerance = kSweepTolerance * total;
  if constexpr (std::is_integral_v<T>) tolerance = std::max(tolerance, kWholeSweepTolerance);
  for (int sweep = 0; sweep < kMaxSweeps; ++sweep) {
    double change = 0;
    for (const int32_t i : fill_experts_)
      change = std::max(change, FillExpert(i, static_cast<double>(fill_demand_[Index(i)])));
    if (change <= tolerance) break;
  }
}

// Turns the water-filled shares into flow that adds up to the demand exactly; whole tokens are cut
// off at cumulative sums.
template <class T>
void BalanceFlow<T>::RoundFills() {
  for (const int32_t i : fill_experts_) {
    const T demand = fill_demand_[Index(i)];
    double sum = 0;
    T given = 0;
    int32_t last = -1;
    for (int32_t e = graph_.edge_begin[Index(i)]; e < graph_.edge_begin[Index(i) + 1]; ++e) {
      if (!Fillable(e)) continue;
      sum += fill_[Index(e)];
      T until = static_cast<T>(sum);
      if constexpr (std::is_integral_v<T>) until = static_cast<T>(std::lround(sum));
      flow_[Index(e)] = std::clamp<T>(until - given, 0, demand - given);
      given += flow_[Index(e)];
      last = e;
    }
    flow_[Index(last)] += demand - given;
    for (int32_t e = graph_.edge_begin[Index(i)]; e < graph_.edge_begin[Index(i) + 1]; ++e)
      if (Fillable(e)) load_[Index(graph_.edge_rank[Index(e)])] += flow_[Index(e)];
  }
}

template <class T>
void BalanceFlow<T>::SolveGeneral(std::span<const T> fixed, std::span<const T> demand) {
  fill_.resize(Index(graph_.num_edges()));
  fill_load_.resize(Index(graph_.num_ranks));
  fill_demand_.resize(Index(graph_.num_shared()));
  StartPass(fixed);
  fill_experts_.clear();
  if (disabled_.empty()) {
    for (const int32_t shared : graph_.tree_order) FillTreeExpert(shared, demand[Index(shared)]);
    for (const int32_t shared : graph_.core_order) FillCoreLeaves(shared, demand[Index(shared)]);
    fill_experts_.assign(graph_.core_order.begin(), graph_.core_order.end());
  } else {
    std::fill(flow_.begin(), flow_.end(), T{0});
    std::copy(demand.begin(), demand.end(), fill_demand_.begin());
    for (int32_t i = 0; i < graph_.num_shared(); ++i) fill_experts_.push_back(i);
  }
  WaterFill();
  RoundFills();
  Augment();
}

template class BalanceFlow<double>;
template class BalanceFlow<int64_t>;

}  // namespace wideload::eplb
