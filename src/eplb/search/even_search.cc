#include "eplb/search/even_search.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace wideload::eplb {
namespace {

// How often a slot is drawn until one is found whose expert has others.
constexpr int kMaxDraws = 8;
// Rises of the objective by more temperatures than this are not kept, at e^-16 each: no draw then.
constexpr double kMostTemperatures = 16;

// Sharpness of the objective by the best one for a placement. Below 1 more than the busiest ranks
// count, which holds better for later batches; one batch with independent scatter has no batches
// to fit too well.
constexpr double kSharpness = 0.7;
constexpr double kSharpnessOfScatter = 1;

std::vector<double> SpeedsOr1(const std::vector<double>& speeds, int32_t num_ranks) {
  return speeds.empty() ? std::vector<double>(static_cast<size_t>(num_ranks), 1.0) : speeds;
}

}  // namespace

EvenSearch::EvenSearch(const EvenModel& model, const Placement& start,
                       const EvenSearchOptions& options)
    : options_(options),
      sharpness_(model.num_batches > 1 ? kSharpness : kSharpnessOfScatter),
      random_(options.seed),
      state_(model, start, SpeedsOr1(options.rank_speed, start.num_ranks)) {
  if (const Placement* now = options.current) {
    held_now_.resize(Index(model.num_experts) * Index(now->num_ranks));
    for (int32_t s = 0; s < now->num_slots(); ++s)
      held_now_[Index(now->slot_expert[Index(s)].value) * Index(now->num_ranks) +
                Index(now->RankOf(SlotId(s)).value)] = 1;
  }
  if (!options_.nodes.home.empty()) at_home_.resize(Index(model.num_experts));
  for (const int32_t s : state_.live_slots()) {
    num_fetches_ += MustFetch(s, state_.ExpertAt(s)) ? 1 : 0;
    if (at_home_.empty()) continue;
    at_home_[Index(state_.ExpertAt(s))] += IsHome(s, state_.ExpertAt(s)) ? 1 : 0;
    num_crossings_ += IsHome(s, state_.ExpertAt(s)) ? 0 : 1;
  }
  Tune();
}

bool EvenSearch::MustFetch(int32_t slot, int32_t expert) const {
  if (held_now_.empty()) return false;
  return held_now_[Index(expert) * Index(placement().num_ranks) + Index(state_.RankOf(slot))] == 0;
}

int32_t EvenSearch::FetchesOf(const EvenMove& move) const {
  int32_t more = 0;
  for (int32_t i = 0; i < move.num_slots; ++i)
    more += static_cast<int32_t>(MustFetch(move.slot[i], move.expert[i])) -
            static_cast<int32_t>(MustFetch(move.slot[i], state_.ExpertAt(move.slot[i])));
  return more;
}

bool EvenSearch::IsHome(int32_t slot, int32_t expert) const {
  return options_.nodes.IsHome(expert, state_.RankOf(slot));
}

// At most so many slots across nodes, and every expert that leaves a slot at home has another
// there.
bool EvenSearch::KeepsNodeRule(const EvenMove& move) const {
  if (at_home_.empty()) return true;
  int32_t crossings = num_crossings_;
  for (int32_t i = 0; i < move.num_slots; ++i) {
    const int32_t leaving = state_.ExpertAt(move.slot[i]);
    const bool leaves_home = IsHome(move.slot[i], leaving);
    crossings += static_cast<int32_t>(leaves_home) -
                 static_cast<int32_t>(IsHome(move.slot[i], move.expert[i]));
    const bool stays = move.num_slots == 2 && IsHome(move.slot[1 - i], leaving);
    if (leaves_home && !stays && at_home_[Index(leaving)] == 1) return false;
  }
  return crossings <= options_.nodes.max_cross_slots;
}

// Half of the moves give a slot whose expert has others to another expert, half swap what two slots
// hold. No move puts an expert twice on a rank.
bool EvenSearch::Propose(EvenMove& move) {
  const std::vector<int32_t>& slots = state_.live_slots();
  const auto num_live = static_cast<int32_t>(slots.size());
  const bool has_spare = num_live > placement().num_experts;
  if (has_spare && random_.Below(2) == 0) {
    int32_t slot = -1;
    for (int draw = 0; draw < kMaxDraws; ++draw) {
      slot = slots[Index(random_.Below(num_live))];
      if (state_.NumSlots(state_.ExpertAt(slot)) > 1) break;
    }
    const int32_t expert = random_.Below(placement().num_experts);
    if (state_.NumSlots(state_.ExpertAt(slot)) < 2) return false;
    if (state_.Holds(state_.RankOf(slot), expert)) return false;
    move = {1, {slot, -1}, {expert, -1}};
    return KeepsNodeRule(move);
  }
  const int32_t a = slots[Index(random_.Below(num_live))];
  const int32_t b = slots[Index(random_.Below(num_live))];
  const int32_t expert_a = state_.ExpertAt(a);
  const int32_t expert_b = state_.ExpertAt(b);
  if (state_.Holds(state_.RankOf(a), expert_b) || state_.Holds(state_.RankOf(b), expert_a))
    return false;
  move = {2, {a, b}, {expert_b, expert_a}};
  return KeepsNodeRule(move);
}

// After state_.Try(move).
void EvenSearch::Keep(const EvenMove& move, int32_t fetches) {
  num_fetches_ += fetches;
  for (int32_t i = 0; i < move.num_slots && !at_home_.empty(); ++i) {
    const int32_t leaving = state_.ExpertAt(move.slot[i]);
    const bool was_home = IsHome(move.slot[i], leaving);
    const bool is_home = IsHome(move.slot[i], move.expert[i]);
    at_home_[Index(leaving)] -= was_home ? 1 : 0;
    at_home_[Index(move.expert[i])] += is_home ? 1 : 0;
    num_crossings_ += static_cast<int32_t>(was_home) - static_cast<int32_t>(is_home);
  }
  state_.Keep();
}

void EvenSearch::Anneal(const Annealing& schedule) {
  const double unit = std::max(0.0, state_.objective()) / placement().num_ranks;
  const double cooling = std::pow(schedule.end_temperature / schedule.start_temperature,
                                  1 / static_cast<double>(schedule.proposals));
  double temperature = schedule.start_temperature * unit;
  EvenMove move;
  for (int64_t i = 0; i < schedule.proposals; ++i, temperature *= cooling) {
    if (!Propose(move)) continue;
    const int32_t fetches = FetchesOf(move);
    if (num_fetches_ + fetches > options_.max_fetches) continue;
    const double change = state_.Try(move) + options_.fetch_price * fetches;
    if (change > kMostTemperatures * temperature) continue;
    if (change > 0 && change >= -temperature * std::log(1 - random_.Uniform())) continue;
    Keep(move, fetches);
  }
  Tune();
}

bool EvenSearch::Step(int32_t proposals, double min_gain) {
  EvenMove best;
  double best_gain = min_gain;
  EvenMove move;
  for (int32_t i = 0; i < proposals; ++i) {
    if (!Propose(move)) continue;
    const int32_t fetches = FetchesOf(move);
    if (num_fetches_ + fetches > options_.max_fetches) continue;
    const double gain = -(state_.Try(move) + options_.fetch_price * fetches) / std::max(1, fetches);
    if (gain <= best_gain) continue;
    best_gain = gain;
    best = move;
  }
  if (best.num_slots == 0) return false;
  state_.Try(best);
  Keep(best, FetchesOf(best));
  return true;
}

}  // namespace wideload::eplb
