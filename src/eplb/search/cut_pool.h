// What the planner knows about the optimal split of a placement without solving it: for a pool of
// rank sets ("cuts"), the load of the experts confined to each set, in every scenario. Load /
// speed of a set is a lower bound of the optimum, so one pass over the pool rejects most changes
// of a placement; solving is needed only for those that pass. Pure; one object per thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "eplb/placement/index.h"
#include "eplb/placement/placement.h"
#include "eplb/search/scenario_lanes.h"

namespace wideload::eplb {

// A set of ranks as a bit mask, word by word.
using RankMask = std::vector<uint64_t>;

// One expert's ranks before and after a change.
struct HostChange {
  int32_t expert = -1;
  const uint64_t* before = nullptr;
  const uint64_t* after = nullptr;
};

class CutPool {
 public:
  // `lanes` must outlive this object. rank_speed [num_ranks]; at most max_cuts sets are kept.
  CutPool(const ScenarioLanes& lanes, int32_t num_ranks, std::vector<double> rank_speed,
          int32_t max_cuts);

  // The placement as the ranks of every expert: hosts [num_experts * num_words()].
  void Reset(std::span<const uint64_t> hosts);
  // Adds a set unless it is there; the one unused for longest makes room.
  void AddCut(const RankMask& ranks, std::span<const uint64_t> hosts);

  // Lower bounds of every scenario's busiest rank / mean after the changes (up to two experts).
  // Writes bounds [num_lanes], each at least 1. Returns what they make the objective at least; or,
  // as soon as that exceeds `limit` or the first of many scenarios make it very likely, infinity.
  // present [num_scenarios]: what scenarios 0..k cost without the changes, in all.
  double Bounds(std::span<const HostChange> changes, double limit, std::span<const double> present,
                std::span<float> bounds);
  // Makes the changes permanent.
  void Apply(std::span<const HostChange> changes);

  // Work so far, see SearchOptions::max_work.
  int64_t work() const { return work_; }

  int32_t num_words() const { return num_words_; }
  int32_t num_cuts() const { return num_cuts_; }

 private:
  const uint64_t* Mask(int32_t cut) const { return masks_.data() + Index(cut) * Index(num_words_); }
  float* Levels(int32_t block, int32_t cut) {
    return levels_.data() + (Index(block) * Index(max_cuts_) + Index(cut)) * Index(kLanes);
  }
  int64_t BlockStep() const { return int64_t{max_cuts_} * kLanes; }
  bool Inside(const uint64_t* hosts, int32_t cut) const;
  void FillLevels(int32_t cut, std::span<const uint64_t> hosts);
  void AddLoad(int32_t expert, float factor, int32_t cut);
  void FindFactors(std::span<const HostChange> changes, int32_t begin, int32_t end);
  double RaiseBounds(std::span<const HostChange> changes, int32_t begin_block, int32_t end_block,
                     int32_t begin, int32_t end, std::span<float> bounds);
  void SortByTightness();
  void Permute(std::span<const int32_t> order);

  const ScenarioLanes& lanes_;
  const LaneKernels& kernels_;
  std::vector<double> rank_speed_;
  int32_t num_words_;
  int32_t max_cuts_;
  int32_t num_cuts_ = 0;
  std::vector<double> weight_until_;  // [num_blocks] share of the scenarios' weights up to there
  std::vector<uint64_t> masks_;       // [max_cuts * num_words]
  std::vector<float> inverse_speed_;  // [max_cuts]
  std::vector<float> levels_;  // [num_blocks * max_cuts * kLanes] load confined to the cut / speed
  std::vector<int64_t> last_use_;  // [max_cuts]
  std::vector<float> factor_[2];   // [max_cuts] what changed experts' loads add to the level
  std::vector<float> no_load_;     // [num_lanes] zeros
  int64_t work_ = 0;
  int64_t clock_ = 0;
  int32_t unsorted_ = 0;  // changes since the tightest cuts were moved to the front
};

}  // namespace wideload::eplb
