// The split of one placement for many scenarios at once, nearly optimal: every expert's tokens are
// levelled out over its ranks, one expert after the other, starting from the split of the placement
// before the last change. The busiest rank of such a split is an upper bound of the optimum; the
// sets of its highest ranks are lower bounds. One object per thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "eplb/placement/index.h"
#include "eplb/placement/placement.h"
#include "eplb/search/cut_pool.h"
#include "eplb/search/scenario_lanes.h"

namespace wideload::eplb {

// New experts of one slot, or of two: a swap of what two slots hold.
struct SlotChange {
  int32_t num_slots = 0;
  int32_t slot[2] = {-1, -1};
  int32_t expert[2] = {-1, -1};      // after the change
  int32_t old_expert[2] = {-1, -1};  // before
};

class LaneFlow {
 public:
  // Both arguments must outlive this object. rank_speed [num_ranks]; 0: the rank's slots get
  // nothing.
  LaneFlow(const ScenarioLanes& lanes, const std::vector<double>& rank_speed);

  // Splits for `placement` from nothing.
  void Reset(const Placement& placement);

  // Splits for `after`, the kept placement with `change` made. lower [num_lanes]: lower bounds of
  // each scenario's busiest rank / mean, at least 1. Returns the objective with the new split,
  // see ScenarioLanes; or, as soon as it is clear that this split stays above `limit`, a number
  // above `limit`. Keep() makes the new split the kept one, or it is dropped.
  double Try(const Placement& after, const SlotChange& change, std::span<const float> lower,
             double limit);
  // Makes the split that was tried last the kept one.
  void Keep();

  // Busiest rank / mean of each scenario, of the kept split; [num_lanes].
  std::span<const float> levels() const { return levels_; }
  // After a Try above its limit: the scenario furthest from its lower bound.
  int32_t worst_scenario() const { return worst_scenario_; }

  // The set of the highest ranks, of the kept split or the tried one, that binds a scenario most.
  // Returns its tokens confined / speed: a lower bound of this scenario's busiest rank / mean.
  double FindCut(int32_t scenario, bool tried, RankMask& ranks);

  // Work so far, see SearchOptions::max_work.
  int64_t work() const { return work_; }

 private:
  // Which slots may carry which expert: the first live one on each rank.
  struct Hosts {
    std::vector<int32_t> all_begin, all_end;  // [num_experts] into all_slot
    std::vector<int32_t> all_slot;            // by expert
    std::vector<int32_t> begin, slot, rank;   // experts with several, see LaneExperts
    std::vector<float> speed, inverse_speed, pair_factor;
  };
  struct Split {
    Hosts hosts;
    std::vector<float> heights;  // [num_blocks * num_ranks * kLanes] tokens / speed
    std::vector<float> tokens;   // [num_blocks * num_slots * kLanes]
  };

  void FindHosts(const Placement& placement, Hosts& hosts);
  void AddShared(int32_t begin, int32_t end, Hosts& hosts) const;
  void ApplyChange(const SlotChange& change, int32_t block);
  void MoveTokens(int32_t block, int32_t from, int32_t to, float share);
  LaneExperts Experts(const Hosts& hosts) const;
  double LevelBlock(int32_t block, std::span<const float> lower, double enough);
  void FindWorst(int32_t block, std::span<const float> lower);
  float* Heights(Split& split, int32_t block) const {
    return split.heights.data() + Index(block) * Index(num_ranks_) * Index(kLanes);
  }
  float* Tokens(Split& split, int32_t block) const {
    return split.tokens.data() + Index(block) * Index(num_slots_) * Index(kLanes);
  }

  const ScenarioLanes& lanes_;
  const LaneKernels& kernels_;
  int32_t num_ranks_;
  int32_t num_slots_ = 0;
  int32_t slots_per_rank_ = 0;
  std::vector<float> speed_, inverse_speed_;  // [num_ranks]
  Split kept_, tried_;
  std::vector<float> levels_, tried_levels_;  // [num_lanes]
  std::vector<int32_t> block_order_;          // the block that ended the last Try comes first
  int32_t worst_scenario_ = 0;
  int64_t work_ = 0;
  std::vector<int32_t> order_, position_;  // [num_ranks] scratch of FindCut
  std::vector<double> confined_;           // [num_ranks] the same
};

}  // namespace wideload::eplb
