#include "eplb/search/target_repair.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>
#include <tuple>
#include <utility>

#include "eplb/placement/index.h"
#include "eplb/search/capped_flow.h"
#include "eplb/search/lane_flow.h"
#include "eplb/split/water_filling.h"

namespace wideload::eplb {
namespace {

// States of the same number of fetches that are followed up, and changes of each that are tried.
constexpr size_t kBeam = 3;
constexpr size_t kCandidates = 48;
constexpr double kTolerance = 1e-7;

struct State {
  Placement placement;
  std::vector<BatchSplit> splits;  // one per scenario
  double above = 0;                // tokens above capacity, weighted mean over scenarios
  int32_t fetches = 0;
};

struct Candidate {
  double promise = 0;  // tokens it may take off, per fetch
  int32_t fetches = 0;
  SlotChange change;
};

class TargetSearch {
 public:
  TargetSearch(const Placement& start, const BatchLoads& scenarios, const TargetOptions& options)
      : scenarios_(scenarios),
        options_(options),
        flow_(Capacities(options)),
        slots_per_rank_(start.slots_per_rank()),
        held_(Index(start.num_experts) * Index(start.num_ranks)),
        of_fetches_(Index(options.max_fetched_slots) + 1) {
    for (int32_t s = 0; s < start.num_slots(); ++s) held_[HeldAt(start, s, ExpertAt(start, s))] = 1;
    of_fetches_[0].push_back(Split(start));
  }

  std::optional<Placement> Run() {
    for (size_t fetches = 0; fetches < of_fetches_.size(); ++fetches) {
      const State* best = nullptr;
      double lowest = options_.until;
      for (const State& state : of_fetches_[fetches]) {
        const double imbalance =
            MeanOptimalImbalance(state.placement, scenarios_, options_.rank_speed);
        if (imbalance > lowest) continue;
        lowest = imbalance;
        best = &state;
      }
      if (best != nullptr) return best->placement;
      const std::vector<State> states = std::move(of_fetches_[fetches]);
      for (const State& state : states) Expand(state);
    }
    return std::nullopt;
  }

 private:
  static std::vector<double> Capacities(const TargetOptions& options) {
    std::vector<double> capacity = options.rank_speed;
    for (double& c : capacity) c *= 1 + options.until;
    return capacity;
  }
  static int32_t ExpertAt(const Placement& placement, int32_t slot) {
    return placement.slot_expert[Index(slot)].value;
  }
  static size_t HeldAt(const Placement& placement, int32_t slot, int32_t expert) {
    return Index(expert) * Index(placement.num_ranks) + Index(placement.RankOf(SlotId(slot)).value);
  }
  bool MustFetch(const Placement& placement, int32_t slot, int32_t expert) const {
    return held_[HeldAt(placement, slot, expert)] == 0;
  }

  // Every expert's tokens on its first slot, then as well as they fit. Loads are scaled to a mean
  // of 1 per rank of speed 1.
  State Split(const Placement& start) {
    hosts_.Find(start, options_.rank_speed);
    const double speed =
        std::accumulate(options_.rank_speed.begin(), options_.rank_speed.end(), 0.0);
    State state{start, {}, 0, 0};
    for (int32_t k = 0; k < scenarios_.size(); ++k) {
      const std::span<const double> load = scenarios_.At(k);
      const double scale = speed / std::accumulate(load.begin(), load.end(), 0.0);
      BatchSplit& split = state.splits.emplace_back();
      split.tokens.assign(start.slot_expert.size(), 0.0);
      split.rank_load.assign(Index(start.num_ranks), 0.0);
      for (int32_t e = 0; e < start.num_experts; ++e) {
        const int32_t slot = hosts_.Of(e).front();
        split.tokens[Index(slot)] = load[Index(e)] * scale;
        split.rank_load[Index(start.RankOf(SlotId(slot)).value)] += load[Index(e)] * scale;
      }
    }
    Fit(state);
    return state;
  }

  void Fit(State& state) {
    state.above = 0;
    double weight = 0;
    for (size_t k = 0; k < state.splits.size(); ++k) {
      state.above += scenarios_.weights[k] * flow_.Fit(state.placement, hosts_, state.splits[k]);
      weight += scenarios_.weights[k];
    }
    state.above /= weight;
  }

  void Expand(const State& state) {
    hosts_.Find(state.placement, options_.rank_speed);
    FindCandidates(state);
    for (const Candidate& candidate : candidates_) {
      const int32_t fetches = state.fetches + candidate.fetches;
      if (fetches > options_.max_fetched_slots) continue;
      tried_ = state;
      tried_.fetches = fetches;
      Apply(candidate.change, tried_);
      if (tried_.above < state.above - kTolerance) KeepTried();
    }
  }

  void KeepTried() {
    std::vector<State>& beam = of_fetches_[Index(tried_.fetches)];
    const auto place =
        std::lower_bound(beam.begin(), beam.end(), tried_.above,
                         [](const State& s, double above) { return s.above < above - kTolerance; });
    if (place != beam.end() && place->above < tried_.above + kTolerance) return;
    if (place == beam.end() && beam.size() == kBeam) return;
    beam.insert(place, tried_);
    if (beam.size() > kBeam) beam.pop_back();
  }

  // The changes that may help the scenario with most tokens above capacity, most promising first.
  void FindCandidates(const State& state) {
    const BatchSplit* split = &state.splits.front();
    double most = -1;
    for (const BatchSplit& other : state.splits) {
      BatchSplit copy = other;
      const double above = flow_.Fit(state.placement, hosts_, copy);
      if (above <= most) continue;
      most = above;
      split = &other;
    }
    BatchSplit copy = *split;
    above_ = flow_.Fit(state.placement, hosts_, copy);
    candidates_.clear();
    lowest_promise_ = -std::numeric_limits<double>::infinity();
    FindHolders(state.placement);
    for (int32_t a = 0; a < state.placement.num_slots(); ++a) {
      const int32_t rank = state.placement.RankOf(SlotId(a)).value;
      if (!flow_.IsFull(rank) || split->tokens[Index(a)] <= kTolerance) continue;
      for (const int32_t b : slots_with_room_) AddCandidates(state.placement, *split, a, b);
    }
    KeepMostPromising();
    std::sort(candidates_.begin(), candidates_.end(), IsBetter);
  }

  static bool IsBetter(const Candidate& x, const Candidate& y) {
    if (x.promise != y.promise) return x.promise > y.promise;
    const auto key = [](const SlotChange& c) {
      return std::tuple(c.slot[0], c.slot[1], c.expert[0]);
    };
    return key(x.change) < key(y.change);
  }

  void KeepMostPromising() {
    if (candidates_.size() <= kCandidates) return;
    const auto last = candidates_.begin() + kCandidates - 1;
    std::nth_element(candidates_.begin(), last, candidates_.end(), IsBetter);
    lowest_promise_ = last->promise;
    candidates_.resize(kCandidates);
  }

  void Offer(const Candidate& candidate) {
    if (candidate.promise < lowest_promise_ || !KeepsNodeRule(candidate.change)) return;
    candidates_.push_back(candidate);
    if (candidates_.size() >= 8 * kCandidates) KeepMostPromising();
  }

  bool IsHome(int32_t expert, int32_t slot) const {
    return options_.nodes.IsHome(expert, slot / slots_per_rank_);
  }

  // Of the state that is expanded: at most so many slots across nodes, and no expert that has a
  // slot at home without one.
  bool KeepsNodeRule(const SlotChange& change) const {
    if (options_.nodes.home.empty()) return true;
    int32_t more_at_home = 0;
    for (int32_t i = 0; i < change.num_slots; ++i) {
      const int32_t old_expert = change.old_expert[i];
      const bool leaves = IsHome(old_expert, change.slot[i]);
      more_at_home += IsHome(change.expert[i], change.slot[i]) - leaves;
      if (!leaves || node_slots_.at_home[Index(old_expert)] > 1) continue;
      const bool stays = change.num_slots == 2 && IsHome(old_expert, change.slot[1 - i]);
      if (!stays) return false;
    }
    return node_slots_.num_crossing - more_at_home <= options_.nodes.max_cross_slots;
  }

  // Which ranks hold which experts, and the slots of ranks that are not full.
  void FindHolders(const Placement& placement) {
    if (!options_.nodes.home.empty())
      node_slots_ = CountNodeSlots(placement, options_.nodes, options_.rank_speed);
    holds_.assign(held_.size(), 0);
    slots_with_room_.clear();
    for (int32_t s = 0; s < placement.num_slots(); ++s) {
      const int32_t rank = placement.RankOf(SlotId(s)).value;
      if (options_.rank_speed[Index(rank)] <= 0) continue;
      holds_[HeldAt(placement, s, ExpertAt(placement, s))] = 1;
      if (!flow_.IsFull(rank)) slots_with_room_.push_back(s);
    }
  }

  // Slot a is on a full rank, b on one with room: a copy of a's expert for b, or a swap.
  void AddCandidates(const Placement& placement, const BatchSplit& split, int32_t a, int32_t b) {
    const int32_t expert_a = ExpertAt(placement, a);
    const int32_t expert_b = ExpertAt(placement, b);
    if (holds_[HeldAt(placement, b, expert_a)] != 0) return;
    const int32_t rank_b = placement.RankOf(SlotId(b)).value;
    const double room = flow_.Room(split, rank_b);
    const double tokens_a = split.tokens[Index(a)];
    const double tokens_b = split.tokens[Index(b)];
    const int32_t fetch = MustFetch(placement, b, expert_a) - MustFetch(placement, b, expert_b);
    const std::span<const int32_t> hosts_b = hosts_.Of(expert_b);
    const bool spare = hosts_b.size() > 1 || hosts_b.front() != b;
    if (spare && fetch > 0) {
      double total = 0;
      for (const int32_t s : hosts_.Of(expert_a)) total += split.tokens[Index(s)];
      const double promise = std::min({total, above_, room + tokens_b}) - tokens_b / 2;
      Offer({promise, fetch, {1, {b, -1}, {expert_a, -1}, {expert_b, -1}}});
    }
    if (tokens_a <= tokens_b || holds_[HeldAt(placement, a, expert_b)] != 0) return;
    const int32_t fetches =
        fetch + MustFetch(placement, a, expert_b) - MustFetch(placement, a, expert_a);
    if (fetches <= 0) return;
    const double promise = std::min({tokens_a - tokens_b, above_, room});
    Offer({promise / fetches, fetches, {2, {a, b}, {expert_b, expert_a}, {expert_a, expert_b}}});
  }

  void Apply(const SlotChange& change, State& state) {
    for (int32_t i = 0; i < change.num_slots; ++i)
      state.placement.slot_expert[Index(change.slot[i])] = ExpertId(change.expert[i]);
    hosts_.Find(state.placement, options_.rank_speed);
    for (BatchSplit& split : state.splits) {
      if (change.num_slots == 2)
        Swap(change, state.placement, split);
      else
        HandOver(change.slot[0], change.old_expert[0], state.placement, split);
    }
    Fit(state);
  }

  static void Swap(const SlotChange& change, const Placement& placement, BatchSplit& split) {
    double& tokens_a = split.tokens[Index(change.slot[0])];
    double& tokens_b = split.tokens[Index(change.slot[1])];
    const double moved = tokens_a - tokens_b;
    split.rank_load[Index(placement.RankOf(SlotId(change.slot[0])).value)] -= moved;
    split.rank_load[Index(placement.RankOf(SlotId(change.slot[1])).value)] += moved;
    std::swap(tokens_a, tokens_b);
  }

  // What the slot had of `expert` goes to the slot of it with the most room.
  void HandOver(int32_t slot, int32_t expert, const Placement& placement, BatchSplit& split) {
    const auto rank_of = [&placement](int32_t s) { return placement.RankOf(SlotId(s)).value; };
    int32_t best = hosts_.Of(expert).front();
    for (const int32_t s : hosts_.Of(expert))
      if (flow_.Room(split, rank_of(s)) > flow_.Room(split, rank_of(best))) best = s;
    const double tokens = std::exchange(split.tokens[Index(slot)], 0.0);
    split.tokens[Index(best)] += tokens;
    split.rank_load[Index(rank_of(slot))] -= tokens;
    split.rank_load[Index(rank_of(best))] += tokens;
  }

  const BatchLoads& scenarios_;
  const TargetOptions& options_;
  CappedFlow flow_;
  int32_t slots_per_rank_;
  NodeSlots node_slots_;        // of the state that is expanded, where there are nodes
  HostSlots hosts_;             // of the placement looked at last
  std::vector<uint8_t> held_;   // [num_experts * num_ranks] in the start
  std::vector<uint8_t> holds_;  // the same of the state that is expanded
  std::vector<int32_t> slots_with_room_;
  std::vector<std::vector<State>> of_fetches_;  // the beam of each number of fetches
  std::vector<Candidate> candidates_;
  double lowest_promise_ = 0;  // of those kept, once there are enough
  State tried_;
  double above_ = 0;
};

}  // namespace

std::optional<Placement> RepairToTarget(const Placement& start, const BatchLoads& scenarios,
                                        const TargetOptions& options) {
  return TargetSearch(start, scenarios, options).Run();
}

}  // namespace wideload::eplb
