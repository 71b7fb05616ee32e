// Local search over placements: swaps of two slots and changes of what a spare slot holds, kept
// when they lower the objective: the mean cost of the optimal-split imbalance over scenarios (see
// ScenarioLanes), plus a price per slot fetched.
// What the cut pool lets through is split for all scenarios at once, nearly optimally; that split's
// imbalance is what counts. Deterministic for a seed; one object per thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "eplb/placement/batch_loads.h"
#include "eplb/placement/index.h"
#include "eplb/placement/placement.h"
#include "eplb/placement/random.h"
#include "eplb/search/cut_pool.h"
#include "eplb/search/lane_flow.h"
#include "eplb/search/node_plan.h"
#include "eplb/search/scenario_lanes.h"

namespace wideload::eplb {

// How long to search, and what every move keeps or pays for.
struct SearchOptions {
  int64_t max_moves = 10000;                  // proposals
  int64_t max_idle_moves = int64_t{1} << 60;  // proposals since the last one that was kept
  // Counted in the loops, the same on every machine; about nanoseconds of one 4 GHz core.
  int64_t max_work = int64_t{1} << 60;
  uint64_t seed = 1;
  double fetch_price = 0;  // added to the objective per slot that differs from `current`
  const Placement* current = nullptr;   // what the ranks hold now; not owned
  std::vector<double> rank_speed = {};  // empty: all 1; slots of ranks with 0 are left alone
  double tail = 0;                      // see ScenarioLanes
  int32_t max_cuts = 160;
  NodeRule nodes = {};  // kept by every move; `start` must keep it
};

class PlanSearch {
 public:
  // `scenarios` needs at least one vector with load. options.current must outlive this object.
  PlanSearch(const BatchLoads& scenarios, const Placement& start, const SearchOptions& options);

  // Proposes options.max_moves moves; keeps those that lower the objective or, at first, raise it a
  // little: many placements are close to each other, few are better than all their neighbours.
  // placement() is the best one met.
  void Run();

  // Looks at `proposals` moves and makes the one with the highest gain per fetched slot (a slot
  // whose expert its rank does not hold in options.current), so that no more than `max_fetches` are
  // fetched in all. Returns false when none gains `min_gain` per fetch.
  bool Step(int32_t proposals, int32_t max_fetches, double min_gain);
  int32_t num_fetches() const { return num_fetches_; }

  const Placement& placement() const { return placement_; }
  double objective() const { return objective_; }  // within about 1e-4 above the exact one
  int64_t work() const { return work_ + pool_.work() + flow_.work(); }

 private:
  bool Propose(SlotChange& move);
  bool OthersInside(int32_t expert, int32_t slot, const uint64_t* cut) const;
  bool ProposeAcrossCut(SlotChange& move);
  bool ProposeAnywhere(SlotChange& move);
  bool MakeSwap(int32_t a, int32_t b, SlotChange& move) const;
  bool MakeReplace(int32_t slot, int32_t expert, SlotChange& move) const;
  int32_t RandomSlot(const uint64_t* mask, bool inside);
  int32_t RandomScenario();

  bool TryMove(const SlotChange& move);
  void DrawSlack(int64_t moves);
  void KeepBest();
  void FindChanges(const SlotChange& move);
  void SetExperts(const SlotChange& move, const int32_t* experts);
  void TakeLevels();
  const uint64_t* CutOf(int32_t scenario);
  bool MustFetch(int32_t slot, int32_t expert) const;
  int32_t FetchesOf(const SlotChange& move) const;
  template <class Counts>
  int32_t MoreSlots(const SlotChange& move, const Counts& counts) const;
  bool Crosses(int32_t slot, int32_t expert) const;
  int32_t CrossingsOf(const SlotChange& move) const;
  bool KeepsHome(int32_t expert, int32_t slot) const;
  bool KeepsNodeRule(const SlotChange& move) const;

  bool Holds(int32_t expert, int32_t rank) const;
  bool HoldsElsewhere(int32_t expert, int32_t slot) const;
  int32_t NumHosts(int32_t expert) const;
  uint64_t* Hosts(int32_t expert) { return hosts_.data() + Index(expert) * words_; }
  const uint64_t* Hosts(int32_t expert) const { return hosts_.data() + Index(expert) * words_; }
  int32_t ExpertAt(int32_t slot) const { return placement_.slot_expert[Index(slot)].value; }
  int32_t RankOf(int32_t slot) const { return slot / slots_per_rank_; }
  static bool Bit(const uint64_t* mask, int32_t rank) {
    return mask[Index(rank) / 64] >> (Index(rank) % 64) & 1;
  }

  SearchOptions options_;
  Placement placement_;
  int32_t slots_per_rank_;
  std::vector<double> rank_speed_;
  ScenarioLanes lanes_;
  CutPool pool_;
  LaneFlow flow_;
  Random random_;
  size_t words_;
  std::vector<uint64_t> hosts_;       // [num_experts * words] live ranks of each expert
  std::vector<uint64_t> home_hosts_;  // the same of options.current; empty without
  std::vector<int32_t> live_slots_;   // slots of live ranks
  std::vector<float> bounds_;         // [num_lanes] scratch
  std::vector<double> share_;         // [num_scenarios] parts in the objective, summed up
  std::vector<RankMask> cuts_;        // [num_scenarios] the set that binds, where has_cut_
  std::vector<uint8_t> has_cut_;      // [num_scenarios] of the present placement
  RankMask tried_cut_;                // scratch
  std::vector<uint64_t> after_;       // [2 * words] scratch of FindChanges
  HostChange changes_[2];
  int32_t num_changes_ = 0;
  int32_t num_crossings_ = 0;  // slots with experts of other nodes
  int32_t num_fetches_ = 0;    // slots that must be fetched, of placement_
  double objective_ = 0;
  int32_t moves_since_reset_ = 0;
  int64_t work_ = 0;  // of proposals
  double slack_ = 0;  // a move may raise the objective by this much
  double best_objective_ = 0;
  Placement best_;
};

}  // namespace wideload::eplb
