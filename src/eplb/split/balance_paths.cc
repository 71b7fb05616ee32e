// The part of BalanceFlow that moves tokens along augmenting paths (Dinic's, of unit length per
// moved expert): from the ranks that a level leaves overfull to those with room.
#include <algorithm>

#include "eplb/split/balance_flow.h"

namespace wideload::eplb {

// Distances, in moved experts, from every rank to the nearest rank with room. Returns whether some
// overfull rank reaches one.
template <class T>
bool BalanceFlow<T>::FindDistances() {
  queue_.clear();
  for (int32_t r = 0; r < graph_.num_ranks; ++r) {
    const bool room = load_[Index(r)] + tolerance_ < capacity_[Index(r)];
    distance_[Index(r)] = room ? 0 : -1;
    cursor_[Index(r)] = graph_.rank_edge_begin[Index(r)];
    if (room) queue_.push_back(r);
  }
  bool reached = false;
  for (size_t head = 0; head < queue_.size(); ++head) {
    const int32_t rank = queue_[head];
    for (int32_t i = graph_.rank_edge_begin[Index(rank)];
         i < graph_.rank_edge_begin[Index(rank) + 1]; ++i) {
      const int32_t edge = graph_.rank_edges[Index(i)];
      if (!Enabled(edge)) continue;
      const int32_t shared = graph_.edge_shared[Index(edge)];
      for (int32_t e = graph_.edge_begin[Index(shared)]; e < graph_.edge_begin[Index(shared) + 1];
           ++e) {
        const int32_t from = graph_.edge_rank[Index(e)];
        if (distance_[Index(from)] >= 0 || flow_[Index(e)] <= tolerance_) continue;
        distance_[Index(from)] = distance_[Index(rank)] + 1;
        reached |= load_[Index(from)] > capacity_[Index(from)] + tolerance_;
        queue_.push_back(from);
      }
    }
  }
  return reached;
}

// Moves up to `amount` from `rank` along shortest paths to ranks with room. Returns what was moved.
template <class T>
T BalanceFlow<T>::Push(int32_t rank, T amount) {
  if (distance_[Index(rank)] == 0) {
    const T taken = std::clamp<T>(capacity_[Index(rank)] - load_[Index(rank)], 0, amount);
    load_[Index(rank)] += taken;
    return taken;
  }
  T moved = 0;
  for (int32_t& i = cursor_[Index(rank)]; i < graph_.rank_edge_begin[Index(rank) + 1]; ++i) {
    const int32_t edge = graph_.rank_edges[Index(i)];
    const int32_t shared = graph_.edge_shared[Index(edge)];
    for (int32_t e = graph_.edge_begin[Index(shared)]; e < graph_.edge_begin[Index(shared) + 1];
         ++e) {
      const T available = std::min<T>(amount - moved, flow_[Index(edge)]);
      if (available <= 0) break;
      const int32_t to = graph_.edge_rank[Index(e)];
      if (distance_[Index(to)] != distance_[Index(rank)] - 1 || !Enabled(e)) continue;
      const T pushed = Push(to, available);
      flow_[Index(edge)] -= pushed;
      flow_[Index(e)] += pushed;
      moved += pushed;
    }
    if (moved >= amount) return moved;
  }
  return moved;
}

// The ranks that overfull ranks can still reach are all full and their tokens can go nowhere else:
// raises their component's level to what they need. Returns whether any level rose.
template <class T>
bool BalanceFlow<T>::RaiseConfinedLevels() {
  queue_.clear();
  for (int32_t r = 0; r < graph_.num_ranks; ++r) {
    confined_[Index(r)] = load_[Index(r)] > capacity_[Index(r)] + tolerance_;
    if (confined_[Index(r)]) queue_.push_back(r);
    set_load_[Index(r)] = 0;  // here by component, of which there are no more than ranks
    set_speed_[Index(r)] = 0;
  }
  for (size_t head = 0; head < queue_.size(); ++head) {
    const int32_t rank = queue_[head];
    const size_t component = Index(graph_.component[Index(rank)]);
    set_load_[component] += static_cast<double>(load_[Index(rank)]);
    set_speed_[component] += speed_[Index(rank)];
    for (int32_t i = graph_.rank_edge_begin[Index(rank)];
         i < graph_.rank_edge_begin[Index(rank) + 1]; ++i) {
      const int32_t edge = graph_.rank_edges[Index(i)];
      if (flow_[Index(edge)] <= tolerance_) continue;
      const int32_t shared = graph_.edge_shared[Index(edge)];
      for (int32_t e = graph_.edge_begin[Index(shared)]; e < graph_.edge_begin[Index(shared) + 1];
           ++e) {
        const int32_t to = graph_.edge_rank[Index(e)];
        if (confined_[Index(to)] || !Enabled(e)) continue;
        confined_[Index(to)] = 1;
        queue_.push_back(to);
      }
    }
  }
  bool raised = false;
  for (size_t c = 0; c < level_.size(); ++c) {
    if (set_speed_[c] <= 0 || !(set_load_[c] / set_speed_[c] > level_[c])) continue;
    level_[c] = set_load_[c] / set_speed_[c];
    raised = true;
  }
  return raised;
}

// Moves tokens along augmenting paths until every rank is within its capacity, raising levels where
// that cannot be.
template <class T>
void BalanceFlow<T>::Augment() {
  do {
    for (int32_t r = 0; r < graph_.num_ranks; ++r) capacity_[Index(r)] = CapacityOf(r);
    while (FindDistances()) {
      for (int32_t r = 0; r < graph_.num_ranks; ++r) {
        const T excess = load_[Index(r)] - capacity_[Index(r)];
        if (excess > tolerance_ && distance_[Index(r)] > 0) load_[Index(r)] -= Push(r, excess);
      }
    }
  } while (RaiseConfinedLevels());
}

template bool BalanceFlow<double>::FindDistances();
template double BalanceFlow<double>::Push(int32_t, double);
template bool BalanceFlow<double>::RaiseConfinedLevels();
template void BalanceFlow<double>::Augment();
template bool BalanceFlow<int64_t>::FindDistances();
template int64_t BalanceFlow<int64_t>::Push(int32_t, int64_t);
template bool BalanceFlow<int64_t>::RaiseConfinedLevels();
template void BalanceFlow<int64_t>::Augment();

}  // namespace wideload::eplb
