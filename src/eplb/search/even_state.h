// A placement under an even split as its search sees it: tokens of every rank in every batch at
// once, kept up while slots change. Internal to eplb; one object per thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "eplb/placement/index.h"
#include "eplb/placement/placement.h"
#include "eplb/search/even_kernels.h"
#include "eplb/search/even_model.h"

namespace wideload::eplb {

// New experts of one slot, or of two that swap theirs.
struct EvenMove {
  int32_t num_slots = 0;
  int32_t slot[2] = {-1, -1};
  int32_t expert[2] = {-1, -1};  // after the move
};

// The objective of a batch is a soft maximum over ranks, (1 / s) log sum exp(s (load - 1) + s^2 V /
// 2): what the busiest rank of many has above the mean when loads scatter with variance V beyond
// what the batches tell. Close to the maximum for a large sharpness s; a small one sees all ranks
// that may become the busiest.
class EvenState {
 public:
  // `model` must outlive this object. rank_speed [num_ranks]; slots of ranks with 0 hold nothing.
  EvenState(const EvenModel& model, const Placement& start, std::span<const double> rank_speed);

  // Takes the sharpness, among those that suit the present loads, under which the objective is
  // lowest, times `factor`.
  void TuneSharpness(double factor);

  // What the objective changes by. The move must be one of live slots: a swap of two ranks'
  // experts, or another expert for a slot whose own has more slots.
  double Try(const EvenMove& move);
  // Makes the move tried last.
  void Keep();

  double objective() const { return objective_; }
  const Placement& placement() const { return placement_; }
  // The expert of a slot.
  int32_t ExpertAt(int32_t slot) const { return placement_.slot_expert[Index(slot)].value; }
  // The rank that owns a slot.
  int32_t RankOf(int32_t slot) const { return rank_of_[Index(slot)]; }
  // Live slots of an expert.
  int32_t NumSlots(int32_t expert) const {
    return static_cast<int32_t>(slots_of_[Index(expert)].size());
  }
  // Whether a live slot of the rank holds the expert.
  bool Holds(int32_t rank, int32_t expert) const {
    return held_[Index(expert) * Index(num_ranks_) + Index(rank)] != 0;
  }
  const std::vector<int32_t>& live_slots() const { return live_slots_; }

 private:
  void AddUpLoads();
  float Offset(double variance) const;
  double ObjectiveAt(double sharpness) const;
  double Objective();
  int32_t Touch(int32_t rank);
  void AddTerm(int32_t slot, int32_t which, double share_before, double share_after);
  void FindSwap(const EvenMove& move);
  void FindReplace(const EvenMove& move);
  void TakeShare(int32_t expert);
  void MoveExpert(int32_t slot, int32_t expert);
  EvenLanes Lanes();

  const EvenModel& model_;
  const EvenKernels& kernels_;
  Placement placement_;
  int32_t num_ranks_;
  int32_t num_blocks_;
  std::vector<int32_t> rank_of_;                // [num_slots]
  std::vector<double> inverse_speed_;           // [num_ranks]; 0: a dead rank
  std::vector<int32_t> live_slots_;             // ascending
  std::vector<std::vector<int32_t>> slots_of_;  // [num_experts] live ones
  std::vector<double> share_;                   // [num_experts] 1 / its slots
  std::vector<double> share_variance_;          // [num_experts] of one slot's load
  std::vector<uint8_t> held_;                   // [num_experts * num_ranks] live slots of it there
  std::vector<float> expert_loads_;             // [num_experts * num_blocks * kLanes]
  std::vector<float> weights_;                  // [num_blocks * kLanes]
  std::vector<float> loads_, exponentials_;     // [num_blocks * num_ranks * kLanes]
  std::vector<float> sums_;                     // [num_blocks * kLanes]
  std::vector<double> variance_;                // [num_ranks]
  std::vector<float> offsets_;                  // [num_ranks]
  double sharpness_ = 1;
  double level_ = 1;  // of loads that exponents count from
  double objective_ = 0;
  int32_t kept_since_sum_ = 0;

  EvenMove tried_;
  double tried_change_ = 0;
  int32_t changed_expert_[2] = {0, 0};
  int32_t num_touched_ = 0;
  std::vector<int32_t> touched_;  // [num_ranks] ranks, as many as num_touched_
  std::vector<int32_t>
      touch_of_;  // [num_ranks] index into touched_; -1: not there, all between moves
  std::vector<float> factors_[2];     // [num_touched_]
  std::vector<double> new_variance_;  // [num_touched_]
  std::vector<float> new_offsets_;    // [num_touched_]
  std::vector<float> new_loads_, new_exponentials_;
};

}  // namespace wideload::eplb
