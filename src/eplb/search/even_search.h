// Local search over placements for engines that split an expert's tokens evenly over its slots:
// swaps of two slots and changes of what a spare slot holds, by simulated annealing. Deterministic
// for a seed; one object per thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "eplb/placement/index.h"
#include "eplb/placement/node_rule.h"
#include "eplb/placement/placement.h"
#include "eplb/placement/random.h"
#include "eplb/search/even_model.h"
#include "eplb/search/even_state.h"

namespace wideload::eplb {

// What a search keeps, and what it pays for.
struct EvenSearchOptions {
  uint64_t seed = 1;
  double fetch_price = 0;              // added to the objective per slot that must be fetched
  const Placement* current = nullptr;  // what the ranks hold now; not owned
  int32_t max_fetches = 1 << 30;       // slots that differ from `current` in all, kept by all moves
  std::vector<double> rank_speed = {};  // empty: all 1; slots of ranks with 0 are left alone
  NodeRule nodes = {};                  // kept by every move; the start must keep it
};

// How the temperature falls, by the same factor at every proposal: a rise of the objective by the
// temperature is kept with probability 1 / e.
struct Annealing {
  int64_t proposals = 200000;
  double start_temperature = 0.1;  // in objective / ranks
  double end_temperature = 0.0005;
};

class EvenSearch {
 public:
  // `model` must outlive this object.
  EvenSearch(const EvenModel& model, const Placement& start, const EvenSearchOptions& options);

  // Under one sharpness, tuned for the start; tunes it for the end.
  void Anneal(const Annealing& schedule);

  // Looks at `proposals` moves and makes the one with the highest gain per fetched slot. Returns
  // false when none gains more than `min_gain` per fetch.
  bool Step(int32_t proposals, double min_gain);

  // Tunes the sharpness for the present placement, so that its objective compares with that of
  // another one that is tuned for, too.
  void Tune() { state_.TuneSharpness(sharpness_); }

  const Placement& placement() const { return state_.placement(); }
  int32_t num_fetches() const { return num_fetches_; }
  // What is minimised: see EvenState, and the price of what must be fetched.
  double objective() const { return state_.objective() + options_.fetch_price * num_fetches_; }

 private:
  bool Propose(EvenMove& move);
  bool MustFetch(int32_t slot, int32_t expert) const;
  bool IsHome(int32_t slot, int32_t expert) const;
  bool KeepsNodeRule(const EvenMove& move) const;
  int32_t FetchesOf(const EvenMove& move) const;
  void Keep(const EvenMove& move, int32_t fetches);

  EvenSearchOptions options_;
  double sharpness_;  // see EvenState::TuneSharpness
  Random random_;
  EvenState state_;
  std::vector<uint8_t> held_now_;  // [num_experts * num_ranks] by options.current; empty without
  std::vector<int32_t> at_home_;   // [num_experts] slots at home; empty without nodes
  int32_t num_crossings_ = 0;      // slots with experts of other nodes
  int32_t num_fetches_ = 0;
};

}  // namespace wideload::eplb
