#include "eplb/plan_search.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "base/error.h"
#include "eplb/balance_flow.h"
#include "eplb/split_graph.h"
namespace wideload::eplb {
namespace {

// Smaller gains are rounding of the pool's floats.
constexpr double kMinGain = 1e-6;
// Incremental sums of floats are made anew after this many kept moves.
constexpr int32_t kMovesPerReset = 64;
// How often a random slot is drawn before a proposal is given up.
constexpr int kMaxDraws = 16;
// Candidates of one repair step that are solved, best first, until one holds what it promises.
constexpr size_t kMaxConfirmed = 8;

bool Bit(const uint64_t* mask, int32_t rank) {
  return mask[static_cast<size_t>(rank) / 64] >> (static_cast<size_t>(rank) % 64) & 1;
}

void SetBit(uint64_t* mask, int32_t rank, bool on) {
  const uint64_t bit = uint64_t{1} << (static_cast<size_t>(rank) % 64);
  uint64_t& word = mask[static_cast<size_t>(rank) / 64];
  word = on ? word | bit : word & ~bit;
}

std::vector<double> SpeedsOr1(const std::vector<double>& speeds, int32_t num_ranks) {
  return speeds.empty() ? std::vector<double>(static_cast<size_t>(num_ranks), 1.0) : speeds;
}

double Sum(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum;
}

std::vector<uint64_t> HostsOf(const Placement& placement, const std::vector<double>& rank_speed) {
  const size_t words = (static_cast<size_t>(placement.num_ranks) + 63) / 64;
  std::vector<uint64_t> hosts(static_cast<size_t>(placement.num_experts) * words, 0);
  for (int32_t s = 0; s < placement.num_slots(); ++s) {
    const int32_t rank = placement.RankOf(SlotId(s)).value;
    if (rank_speed[static_cast<size_t>(rank)] <= 0) continue;
    const auto expert = static_cast<size_t>(placement.slot_expert[static_cast<size_t>(s)].value);
    SetBit(hosts.data() + expert * words, rank, true);
  }
  return hosts;
}

}  // namespace

PlanSearch::PlanSearch(const Scenarios& scenarios, const Placement& start,
                       const SearchOptions& options)
    : scenarios_(scenarios),
      options_(options),
      placement_(start),
      slots_per_rank_(start.slots_per_rank()),
      rank_speed_(SpeedsOr1(options.rank_speed, start.num_ranks)),
      lanes_(scenarios, Sum(rank_speed_)),
      pool_(lanes_, start.num_ranks, rank_speed_, options.max_cuts),
      random_(options.seed),
      words_(Index(pool_.num_words())),
      hosts_(HostsOf(start, rank_speed_)),
      bounds_(Index(lanes_.num_lanes())),
      imbalance_(Index(lanes_.num_scenarios())),
      new_imbalance_(imbalance_),
      cuts_(Index(lanes_.num_scenarios()) * words_),
      new_cuts_(cuts_),
      flows_(Index(lanes_.num_scenarios())),
      new_flows_(flows_),
      after_(2 * words_) {
  if (options_.current != nullptr) home_hosts_ = HostsOf(*options_.current, rank_speed_);
  for (int32_t s = 0; s < start.num_slots(); ++s) {
    if (rank_speed_[Index(RankOf(s))] <= 0) continue;
    live_slots_.push_back(s);
    num_fetches_ += MustFetch(s, ExpertAt(s));
  }
  objective_ = std::numeric_limits<double>::infinity();
  std::fill(bounds_.begin(), bounds_.end(), 1.0F);
  SolveWithin(objective_);
}

bool PlanSearch::Holds(int32_t expert, int32_t rank) const { return Bit(Hosts(expert), rank); }

bool PlanSearch::HoldsElsewhere(int32_t expert, int32_t slot) const {
  const int32_t first = RankOf(slot) * slots_per_rank_;
  for (int32_t s = first; s < first + slots_per_rank_; ++s)
    if (s != slot && ExpertAt(s) == expert) return true;
  return false;
}

int32_t PlanSearch::NumHosts(int32_t expert) const {
  int32_t count = 0;
  for (size_t w = 0; w < words_; ++w) count += std::popcount(Hosts(expert)[w]);
  return count;
}

bool PlanSearch::MustFetch(int32_t slot, int32_t expert) const {
  return !home_hosts_.empty() && !Bit(home_hosts_.data() + Index(expert) * words_, RankOf(slot));
}

// How many more slots a move makes ranks fetch.
int32_t PlanSearch::FetchesOf(const Move& move) const {
  int32_t fetches = 0;
  for (int32_t i = 0; i < move.num_slots; ++i)
    fetches += static_cast<int32_t>(MustFetch(move.slot[i], move.expert[i])) -
               static_cast<int32_t>(MustFetch(move.slot[i], ExpertAt(move.slot[i])));
  return fetches;
}

// ---- proposals --------------------------------------------------------------------------------

int32_t PlanSearch::RandomSlot(const uint64_t* mask, bool inside) {
  for (int draw = 0; draw < kMaxDraws; ++draw) {
    const int32_t slot =
        live_slots_[Index(random_.Below(static_cast<int32_t>(live_slots_.size())))];
    if (mask == nullptr || Bit(mask, RankOf(slot)) == inside) return slot;
  }
  return -1;
}

// A scenario drawn by its part in the objective; -1 when there is nothing left to gain.
int32_t PlanSearch::RandomScenario() {
  double sum = 0;
  for (int32_t k = 0; k < lanes_.num_scenarios(); ++k)
    sum += lanes_.weight(k) * imbalance_[Index(k)];
  if (sum <= kMinGain) return -1;
  double left = random_.Uniform() * sum;
  for (int32_t k = 0; k < lanes_.num_scenarios(); ++k) {
    left -= lanes_.weight(k) * imbalance_[Index(k)];
    if (left < 0) return k;
  }
  return lanes_.num_scenarios() - 1;
}

bool PlanSearch::MakeSwap(int32_t a, int32_t b, Move& move) const {
  const int32_t expert_a = ExpertAt(a);
  const int32_t expert_b = ExpertAt(b);
  if (Holds(expert_a, RankOf(b)) || Holds(expert_b, RankOf(a))) return false;
  move = {2, {a, b}, {expert_b, expert_a}};
  return true;
}

bool PlanSearch::MakeReplace(int32_t slot, int32_t expert, Move& move) const {
  const int32_t old_expert = ExpertAt(slot);
  if (Holds(expert, RankOf(slot))) return false;
  if (NumHosts(old_expert) < 2 && !HoldsElsewhere(old_expert, slot)) return false;
  move = {1, {slot, -1}, {expert, -1}};
  return true;
}

// Takes load out of the set of ranks that binds some scenario.
bool PlanSearch::ProposeAcrossCut(Move& move) {
  const int32_t scenario = RandomScenario();
  if (scenario < 0) return false;
  const uint64_t* cut = cuts_.data() + Index(scenario) * words_;
  const int32_t inside = RandomSlot(cut, true);
  const int32_t outside = RandomSlot(cut, false);
  if (inside < 0 || outside < 0) return false;
  const bool spare_outside = NumHosts(ExpertAt(outside)) > 1;
  if (spare_outside && random_.Below(2) == 0) return MakeReplace(outside, ExpertAt(inside), move);
  return MakeSwap(inside, outside, move);
}

bool PlanSearch::ProposeAnywhere(Move& move) {
  const int32_t a = RandomSlot(nullptr, true);
  const int32_t b = RandomSlot(nullptr, true);
  if (NumHosts(ExpertAt(a)) > 1 && random_.Below(2) == 0) return MakeReplace(a, ExpertAt(b), move);
  return MakeSwap(a, b, move);
}

bool PlanSearch::Propose(Move& move) {
  return random_.Below(4) != 0 ? ProposeAcrossCut(move) : ProposeAnywhere(move);
}

// ---- evaluation -------------------------------------------------------------------------------

// The hosts of the experts that a move touches, before and after it.
void PlanSearch::FindChanges(const Move& move) {
  num_changes_ = 0;
  const auto change = [this](int32_t expert, int32_t leave_slot, int32_t enter_slot) {
    uint64_t* after = after_.data() + Index(num_changes_) * words_;
    std::copy_n(Hosts(expert), words_, after);
    if (leave_slot >= 0 && !HoldsElsewhere(expert, leave_slot))
      SetBit(after, RankOf(leave_slot), false);
    if (enter_slot >= 0) SetBit(after, RankOf(enter_slot), true);
    changes_[num_changes_++] = {expert, Hosts(expert), after};
  };
  if (move.num_slots == 2) {
    change(move.expert[1], move.slot[0], move.slot[1]);
    change(move.expert[0], move.slot[1], move.slot[0]);
  } else {
    change(move.expert[0], -1, move.slot[0]);
    change(ExpertAt(move.slot[0]), move.slot[0], -1);
  }
}

double PlanSearch::BoundOf(std::span<const float> bounds) const {
  double bound = 0;
  for (int32_t k = 0; k < lanes_.num_scenarios(); ++k)
    bound += lanes_.weight(k) * std::max(0.0, static_cast<double>(bounds[Index(k)]) - 1);
  return bound;
}

// For every edge the edge of the last solved graph between the same expert and rank, or -1; empty
// when nothing was solved yet.
std::vector<int32_t> PlanSearch::EdgesBefore(const SplitGraph& graph) const {
  std::vector<int32_t> before;
  if (graph_.num_experts == 0) return before;
  for (int32_t e = 0; e < graph.num_edges(); ++e) {
    before.push_back(-1);
    const int32_t expert = graph.shared_expert[Index(graph.edge_shared[Index(e)])];
    const int32_t shared = graph_.shared_index[Index(expert)];
    if (shared < 0) continue;
    for (int32_t old = graph_.edge_begin[Index(shared)]; old < graph_.edge_begin[Index(shared) + 1];
         ++old)
      if (graph_.edge_rank[Index(old)] == graph.edge_rank[Index(e)]) before.back() = old;
  }
  return before;
}

// Solves every scenario for placement_ and updates the objective; gives up, changing nothing but
// the pool, when the objective would not be below `limit`. bounds_ must hold lower bounds.
bool PlanSearch::SolveWithin(double limit) {
  std::vector<bool> alive;
  for (const double speed : rank_speed_) alive.push_back(speed > 0);
  SplitGraph graph = MakeSplitGraph(placement_, alive);
  const std::vector<int32_t> before = EdgesBefore(graph);
  std::vector<double> start(graph.edge_rank.size());
  BalanceFlow<double> flow(graph, rank_speed_);
  std::vector<double> fixed(rank_speed_.size());
  std::vector<double> demand(Index(graph.num_shared()));
  std::vector<uint8_t> tight(rank_speed_.size());
  RankMask mask(words_);
  double sum = BoundOf(bounds_);
  const double fetch_cost = options_.fetch_price * num_fetches_;
  const double mean_speed = Sum(rank_speed_);
  for (int32_t k = 0; k < lanes_.num_scenarios(); ++k) {
    std::fill(fixed.begin(), fixed.end(), 0.0);
    const std::span<const double> loads = scenarios_.At(k);
    double total = 0;
    for (size_t e = 0; e < loads.size(); ++e) {
      total += loads[e];
      if (graph.single_rank[e] >= 0) fixed[Index(graph.single_rank[e])] += loads[e];
    }
    for (size_t i = 0; i < demand.size(); ++i) demand[i] = loads[Index(graph.shared_expert[i])];
    if (graph.is_forest() || before.empty()) {
      flow.Solve(fixed, demand);
    } else {
      for (size_t e = 0; e < start.size(); ++e)
        start[e] = before[e] < 0 ? 0.0 : flows_[Index(k)][Index(before[e])];
      flow.SolveFrom(fixed, demand, start);
    }
    new_flows_[Index(k)].assign(flow.flow().begin(), flow.flow().end());
    ++num_solves_;
    flow.FindTightRanks(tight);
    const double highest = *std::max_element(flow.levels().begin(), flow.levels().end());
    const double level = total > 0 ? highest * mean_speed / total : 1.0;
    new_imbalance_[Index(k)] = std::max(0.0, level - 1);
    std::fill(mask.begin(), mask.end(), 0);
    for (int32_t r = 0; r < placement_.num_ranks; ++r)
      if (tight[Index(r)]) SetBit(mask.data(), r, true);
    std::copy(mask.begin(), mask.end(),
              new_cuts_.begin() + static_cast<std::ptrdiff_t>(Index(k) * words_));
    const double bound = std::max(1.0, static_cast<double>(bounds_[Index(k)]));
    if (level > bound + kMinGain) pool_.AddCut(mask, hosts_);
    sum += lanes_.weight(k) * (new_imbalance_[Index(k)] - (bound - 1));
    if (sum + fetch_cost > limit - kMinGain) return false;
  }
  objective_ = sum + fetch_cost;
  imbalance_.swap(new_imbalance_);
  cuts_.swap(new_cuts_);
  flows_.swap(new_flows_);
  graph_ = std::move(graph);
  return true;
}

void PlanSearch::Apply(const Move& move) {
  FindChanges(move);
  const std::span<const HostChange> changes(changes_, Index(num_changes_));
  pool_.Apply(changes);
  for (const HostChange& change : changes) std::copy_n(change.after, words_, Hosts(change.expert));
  num_fetches_ += FetchesOf(move);
  for (int32_t i = 0; i < move.num_slots; ++i) {
    placement_.slot_expert[Index(move.slot[i])] = ExpertId(move.expert[i]);
  }
}

bool PlanSearch::TryMove(const Move& move) {
  FindChanges(move);
  const double fetch = options_.fetch_price * (num_fetches_ + FetchesOf(move));
  const double limit = objective_ - kMinGain - fetch;
  const std::span<const HostChange> changes(changes_, Index(num_changes_));
  if (pool_.Bounds(changes, limit, bounds_) > limit) return false;
  Move undo = move;
  for (int32_t i = 0; i < move.num_slots; ++i) undo.expert[i] = ExpertAt(move.slot[i]);
  Apply(move);
  if (SolveWithin(objective_)) return true;
  Apply(undo);
  return false;
}

void PlanSearch::Run() {
  Move move;
  for (int64_t i = 0; i < options_.max_moves && num_solves_ < options_.max_solves; ++i) {
    if (!Propose(move) || !TryMove(move)) continue;
    if (++moves_since_reset_ < kMovesPerReset) continue;
    pool_.Reset(hosts_);
    moves_since_reset_ = 0;
  }
}

bool PlanSearch::Step(int32_t proposals, int32_t max_fetches, double min_gain) {
  struct Candidate {
    double gain_per_fetch;
    Move move;
  };
  std::vector<Candidate> candidates;
  Move move;
  for (int32_t i = 0; i < proposals; ++i) {
    if (!Propose(move)) continue;
    const int32_t fetches = FetchesOf(move);
    if (num_fetches_ + fetches > max_fetches) continue;
    FindChanges(move);
    const std::span<const HostChange> changes(changes_, Index(num_changes_));
    const double needed = min_gain * std::max(1, fetches);
    const double gain = objective_ - pool_.Bounds(changes, objective_ - needed, bounds_);
    if (gain > needed) candidates.push_back({gain / std::max(1, fetches), move});
  }
  std::stable_sort(candidates.begin(), candidates.end(), [](const auto& a, const auto& b) {
    return a.gain_per_fetch > b.gain_per_fetch;
  });
  candidates.resize(std::min(candidates.size(), kMaxConfirmed));
  for (const Candidate& candidate : candidates)
    if (TryMove(candidate.move)) return true;
  return false;
}

}  // namespace wideload::eplb
