#include "eplb/search/plan_search.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <span>

#include "base/error.h"

namespace wideload::eplb {
namespace {

// Smaller gains are rounding of floats.
constexpr double kMinGain = 1e-5;
// Incremental sums of floats are made anew after this many kept moves.
constexpr int32_t kMovesPerReset = 64;
constexpr int64_t kWorkPerProposal = 60;
// Slack of Run: its mean at the start as a share of the objective, and the part of the run after
// which there is none.
constexpr double kSlack = 0.003;
constexpr double kSlackEnd = 0.7;
// Moves drawn for each that is looked at, at most: most of them break the node rule.
constexpr int32_t kDrawsOverNodes = 8;
// Candidates of one repair step that are tried, best first, until one holds what it promises.
constexpr size_t kMaxConfirmed = 8;

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

PlanSearch::PlanSearch(const BatchLoads& scenarios, const Placement& start,
                       const SearchOptions& options)
    : options_(options),
      placement_(start),
      slots_per_rank_(start.slots_per_rank()),
      rank_speed_(SpeedsOr1(options.rank_speed, start.num_ranks)),
      lanes_(scenarios, Sum(rank_speed_), options.tail),
      pool_(lanes_, start.num_ranks, rank_speed_, options.max_cuts),
      flow_(lanes_, rank_speed_),
      random_(options.seed),
      words_(Index(pool_.num_words())),
      hosts_(HostsOf(start, rank_speed_)),
      bounds_(Index(lanes_.num_lanes())),
      share_(Index(lanes_.num_scenarios())),
      cuts_(share_.size(), RankMask(words_)),
      has_cut_(share_.size()),
      tried_cut_(words_),
      after_(2 * words_) {
  if (options_.current != nullptr) home_hosts_ = HostsOf(*options_.current, rank_speed_);
  for (int32_t s = 0; s < start.num_slots(); ++s) {
    if (rank_speed_[Index(RankOf(s))] <= 0) continue;
    live_slots_.push_back(s);
    num_fetches_ += MustFetch(s, ExpertAt(s));
    num_crossings_ += Crosses(s, ExpertAt(s));
  }
  flow_.Reset(placement_);
  TakeLevels();
}

// The objective and its parts after the kept split changed.
void PlanSearch::TakeLevels() {
  double sum = 0;
  for (int32_t k = 0; k < lanes_.num_scenarios(); ++k) {
    sum += lanes_.CostOf(k, flow_.levels()[Index(k)]);
    share_[Index(k)] = sum;
  }
  objective_ = sum + options_.fetch_price * num_fetches_;
  std::fill(has_cut_.begin(), has_cut_.end(), uint8_t{0});
}

// The ranks that bind a scenario now; known to the pool from then on.
const uint64_t* PlanSearch::CutOf(int32_t scenario) {
  RankMask& cut = cuts_[Index(scenario)];
  if (!has_cut_[Index(scenario)]) {
    flow_.FindCut(scenario, false, cut);
    pool_.AddCut(cut, hosts_);
    has_cut_[Index(scenario)] = 1;
  }
  return cut.data();
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

// How many more slots count, by (slot, expert), after a move.
template <class Counts>
int32_t PlanSearch::MoreSlots(const SlotChange& move, const Counts& counts) const {
  int32_t more = 0;
  for (int32_t i = 0; i < move.num_slots; ++i)
    more += static_cast<int32_t>(counts(move.slot[i], move.expert[i])) -
            static_cast<int32_t>(counts(move.slot[i], ExpertAt(move.slot[i])));
  return more;
}

int32_t PlanSearch::FetchesOf(const SlotChange& move) const {
  return MoreSlots(move, [this](int32_t slot, int32_t expert) { return MustFetch(slot, expert); });
}

// ---- nodes --------------------------------------------------------------------------------------

bool PlanSearch::Crosses(int32_t slot, int32_t expert) const {
  return !options_.nodes.home.empty() && !options_.nodes.IsHome(expert, RankOf(slot));
}

int32_t PlanSearch::CrossingsOf(const SlotChange& move) const {
  return MoreSlots(move, [this](int32_t slot, int32_t expert) { return Crosses(slot, expert); });
}

// Whether `expert` has a slot on its home node beside `slot`.
bool PlanSearch::KeepsHome(int32_t expert, int32_t slot) const {
  if (HoldsElsewhere(expert, slot)) return true;
  const int32_t first = options_.nodes.home[Index(expert)] * options_.nodes.ranks_per_node;
  for (int32_t rank = first; rank < first + options_.nodes.ranks_per_node; ++rank)
    if (rank != RankOf(slot) && Holds(expert, rank)) return true;
  return false;
}

bool PlanSearch::KeepsNodeRule(const SlotChange& move) const {
  if (options_.nodes.home.empty()) return true;
  if (num_crossings_ + CrossingsOf(move) > options_.nodes.max_cross_slots) return false;
  for (int32_t i = 0; i < move.num_slots; ++i) {
    const int32_t expert = ExpertAt(move.slot[i]);
    if (Crosses(move.slot[i], expert)) continue;
    const bool stays = move.num_slots == 2 && !Crosses(move.slot[1 - i], expert);
    if (!stays && !KeepsHome(expert, move.slot[i])) return false;
  }
  return true;
}

// ---- evaluation -------------------------------------------------------------------------------

// The hosts of the experts that a move touches, before and after it.
void PlanSearch::FindChanges(const SlotChange& move) {
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

void PlanSearch::SetExperts(const SlotChange& move, const int32_t* experts) {
  for (int32_t i = 0; i < move.num_slots; ++i)
    placement_.slot_expert[Index(move.slot[i])] = ExpertId(experts[i]);
}

bool PlanSearch::TryMove(const SlotChange& move) {
  FindChanges(move);
  const int32_t fetches = FetchesOf(move);
  const int32_t crossings = CrossingsOf(move);
  const double limit =
      objective_ - kMinGain + slack_ - options_.fetch_price * (num_fetches_ + fetches);
  const std::span<const HostChange> changes(changes_, Index(num_changes_));
  if (pool_.Bounds(changes, limit, share_, bounds_) > limit) return false;
  SetExperts(move, move.expert);
  if (flow_.Try(placement_, move, bounds_, limit) > limit) {
    SetExperts(move, move.old_expert);
    flow_.FindCut(flow_.worst_scenario(), true, tried_cut_);
    pool_.AddCut(tried_cut_, hosts_);
    return false;
  }
  pool_.Apply(changes);
  for (const HostChange& change : changes) std::copy_n(change.after, words_, Hosts(change.expert));
  num_fetches_ += fetches;
  num_crossings_ += crossings;
  flow_.Keep();
  TakeLevels();
  return true;
}

// How much worse the next move may make it: exponentially distributed, its mean a share of the
// objective without fetches that falls to 0 before the end of the run.
void PlanSearch::DrawSlack(int64_t moves) {
  const double part =
      std::max(static_cast<double>(moves) / static_cast<double>(options_.max_moves),
               static_cast<double>(work()) / static_cast<double>(options_.max_work));
  const double mean = kSlack * share_.back() * std::max(0.0, 1 - part / kSlackEnd);
  slack_ = -std::log(1 - random_.Uniform()) * mean;
}

void PlanSearch::KeepBest() {
  if (!best_.slot_expert.empty() && objective_ >= best_objective_) return;
  best_objective_ = objective_;
  best_ = placement_;
}

void PlanSearch::Run() {
  SlotChange move;
  int64_t idle = 0;
  KeepBest();
  for (int64_t i = 0; i < options_.max_moves && idle < options_.max_idle_moves; ++i) {
    if (work() > options_.max_work) break;
    work_ += kWorkPerProposal;
    ++idle;
    DrawSlack(i);
    if (!Propose(move) || !TryMove(move)) continue;
    if (objective_ < best_objective_) idle = 0;
    KeepBest();
    if (++moves_since_reset_ < kMovesPerReset) continue;
    pool_.Reset(hosts_);
    moves_since_reset_ = 0;
  }
  slack_ = 0;
  placement_ = best_;
  objective_ = best_objective_;
}

bool PlanSearch::Step(int32_t proposals, int32_t max_fetches, double min_gain) {
  struct Candidate {
    double gain_per_fetch;
    SlotChange move;
  };
  std::vector<Candidate> candidates;
  SlotChange move;
  const int32_t draws = options_.nodes.home.empty() ? proposals : kDrawsOverNodes * proposals;
  for (int32_t drawn = 0, looked_at = 0; drawn < draws && looked_at < proposals; ++drawn) {
    if (!Propose(move)) continue;
    ++looked_at;
    const int32_t fetches = FetchesOf(move);
    if (num_fetches_ + fetches > max_fetches) continue;
    FindChanges(move);
    const std::span<const HostChange> changes(changes_, Index(num_changes_));
    const double needed = min_gain * std::max(1, fetches);
    const double gain = objective_ - pool_.Bounds(changes, objective_ - needed, share_, bounds_);
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
