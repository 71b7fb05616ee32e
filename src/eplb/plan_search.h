// Local search over placements: swaps of two slots and changes of what a spare slot holds, kept
// when they lower the mean optimal-split imbalance over scenarios (plus a price per slot fetched).
// Exact: what the cut pool lets through is solved. Deterministic for a seed; one object per thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "eplb/cut_pool.h"
#include "eplb/placement.h"
#include "eplb/random.h"
#include "eplb/scenario.h"
#include "eplb/split_graph.h"

namespace wideload::eplb {

struct SearchOptions {
  int64_t max_moves = 10000;        // proposals
  int64_t max_solves = 1000000000;  // splits solved to confirm them, about
  uint64_t seed = 1;
  double fetch_price = 0;  // added to the objective per slot that differs from `current`
  const Placement* current = nullptr;   // what the ranks hold now; not owned
  std::vector<double> rank_speed = {};  // empty: all 1; slots of ranks with 0 are left alone
  int32_t max_cuts = 160;
};

class PlanSearch {
 public:
  // `scenarios` needs at least one vector with load. Both arguments must outlive this object.
  PlanSearch(const Scenarios& scenarios, const Placement& start, const SearchOptions& options);

  // Proposes options.max_moves moves; keeps those that lower the objective.
  void Run();

  // Looks at `proposals` moves and makes the one with the highest gain per fetched slot (a slot
  // whose expert its rank does not hold in options.current), so that no more than `max_fetches` are
  // fetched in all. Returns false when none gains `min_gain` per fetch.
  bool Step(int32_t proposals, int32_t max_fetches, double min_gain);
  int32_t num_fetches() const { return num_fetches_; }

  const Placement& placement() const { return placement_; }
  double objective() const { return objective_; }
  int64_t num_solves() const { return num_solves_; }

 private:
  // A slot's new expert; a swap is two of them.
  struct Move {
    int32_t num_slots = 0;
    int32_t slot[2] = {-1, -1};
    int32_t expert[2] = {-1, -1};
  };

  bool Propose(Move& move);
  bool ProposeAcrossCut(Move& move);
  bool ProposeAnywhere(Move& move);
  bool MakeSwap(int32_t a, int32_t b, Move& move) const;
  bool MakeReplace(int32_t slot, int32_t expert, Move& move) const;
  int32_t RandomSlot(const uint64_t* mask, bool inside);
  int32_t RandomScenario();

  bool TryMove(const Move& move);
  void FindChanges(const Move& move);
  void Apply(const Move& move);
  double BoundOf(std::span<const float> bounds) const;
  bool SolveWithin(double limit);
  std::vector<int32_t> EdgesBefore(const SplitGraph& graph) const;
  bool MustFetch(int32_t slot, int32_t expert) const;
  int32_t FetchesOf(const Move& move) const;

  bool Holds(int32_t expert, int32_t rank) const;
  bool HoldsElsewhere(int32_t expert, int32_t slot) const;
  int32_t NumHosts(int32_t expert) const;
  uint64_t* Hosts(int32_t expert) { return hosts_.data() + Index(expert) * words_; }
  const uint64_t* Hosts(int32_t expert) const { return hosts_.data() + Index(expert) * words_; }
  int32_t ExpertAt(int32_t slot) const { return placement_.slot_expert[Index(slot)].value; }
  int32_t RankOf(int32_t slot) const { return slot / slots_per_rank_; }
  static size_t Index(int32_t i) { return static_cast<size_t>(i); }

  const Scenarios& scenarios_;
  SearchOptions options_;
  Placement placement_;
  int32_t slots_per_rank_;
  std::vector<double> rank_speed_;
  ScenarioLanes lanes_;
  CutPool pool_;
  Random random_;
  size_t words_;
  std::vector<uint64_t> hosts_;       // [num_experts * words] live ranks of each expert
  std::vector<uint64_t> home_hosts_;  // the same of options.current; empty without
  std::vector<int32_t> live_slots_;   // slots of live ranks
  std::vector<float> bounds_;         // [num_lanes] scratch
  std::vector<double> imbalance_, new_imbalance_;  // [num_scenarios] exact
  std::vector<uint64_t> cuts_, new_cuts_;          // [num_scenarios * words] the set that binds
  SplitGraph graph_;                               // of placement_ when it was last solved
  std::vector<std::vector<double>> flows_, new_flows_;  // [num_scenarios][num_edges]
  std::vector<uint64_t> after_;                         // [2 * words] scratch of FindChanges
  HostChange changes_[2];
  int32_t num_changes_ = 0;
  int32_t num_fetches_ = 0;  // slots that must be fetched, of placement_
  double objective_ = 0;
  int64_t num_solves_ = 0;
  int32_t moves_since_reset_ = 0;
};

}  // namespace wideload::eplb
