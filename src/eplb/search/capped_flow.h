// One batch's tokens on the slots of a placement with no rank above its capacity, as far as any
// split can do that: a maximum flow by augmenting paths, kept up while the placement changes.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "eplb/placement/placement.h"

namespace wideload::eplb {

// Which slots carry which expert: the first one on each rank that is alive.
class HostSlots {
 public:
  // rank_speed [num_ranks]; 0: a dead rank.
  void Find(const Placement& placement, std::span<const double> rank_speed);
  // After Find: the expert's slots, one a rank.
  std::span<const int32_t> Of(int32_t expert) const;

 private:
  std::vector<int32_t> begin_, slot_, last_rank_;
};

// A split of one batch; plain values.
struct BatchSplit {
  std::vector<double> tokens;     // [num_slots]
  std::vector<double> rank_load;  // [num_ranks]
};

// Moves tokens between slots; scratch space for one size of placements.
class CappedFlow {
 public:
  explicit CappedFlow(std::vector<double> capacity);  // [num_ranks]

  // Moves tokens along shared experts until as few as possible are above the ranks' capacities.
  // Returns how many these are.
  double Fit(const Placement& placement, const HostSlots& hosts, BatchSplit& split);
  // After Fit: the ranks above capacity and those they could hand tokens to, all of them full.
  bool IsFull(int32_t rank) const { return reached_[static_cast<size_t>(rank)] != 0; }
  // Tokens the rank may still take; negative above its capacity.
  double Room(const BatchSplit& split, int32_t rank) const {
    return capacity_[static_cast<size_t>(rank)] - split.rank_load[static_cast<size_t>(rank)];
  }

 private:
  struct Step {
    int32_t from_slot = -1;  // -1: a path begins at this rank
    int32_t to_slot = -1;
  };
  int32_t FindRoom(const Placement& placement, const HostSlots& hosts, const BatchSplit& split);
  void Push(const Placement& placement, int32_t rank, BatchSplit& split);

  std::vector<double> capacity_;
  std::vector<uint8_t> reached_;
  std::vector<Step> step_;  // [num_ranks] how a rank was reached
  std::vector<int32_t> queue_;
};

}  // namespace wideload::eplb
