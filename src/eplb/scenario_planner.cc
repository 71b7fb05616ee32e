#include "eplb/scenario_planner.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <utility>

#include "base/error.h"
#include "eplb/component_plan.h"
#include "eplb/placement_figures.h"
#include "eplb/plan_search.h"
#include "eplb/random.h"

namespace wideload::eplb {
namespace {

// The assignment of ranks costs ranks^3; beyond this the greedy one is taken.
constexpr int32_t kMaxOptimalRanks = 256;
// Work of a search, see SearchOptions: keeps a plan below 60 ms, and its time proportional to ranks
// beyond kManyRanks. On few ranks more of the counted work is done in a millisecond.
constexpr int64_t kMaxWork = 35'000'000;
constexpr int64_t kMaxWorkOnFewRanks = 50'000'000;
constexpr int32_t kFewRanks = 16;
constexpr int32_t kManyRanks = 64;
// Scenarios x ranks x slots that this work suffices for. More scenarios make the search know less
// of them by heart, until it has no time to look for the best placement.
constexpr int64_t kScenarioRoom = 330'000;
// A search has come to its end when so many proposals in a row were of no use.
constexpr int64_t kMaxIdleMoves = 10000;

// A search whose objective is below this has no slope left: it goes on with variations twice as
// wide added, so often; the narrow ones weigh more, so that they stay solved.
constexpr double kSolved = 0.002;
constexpr int kMaxWidenings = 2;
constexpr double kNarrowWeight = 8;
// The part of the work, one in so many, that goes from each of two starts.
constexpr int64_t kStartShare = 4;

size_t Index(int64_t i) { return static_cast<size_t>(i); }

// overlap[a * ranks + b]: slots of `planned` rank b that `current` rank a holds already.
// Far below 0 where the ranks are of different nodes.
std::vector<int32_t> Overlaps(const Placement& current, const Placement& planned,
                              int32_t ranks_per_node) {
  const auto ranks = Index(planned.num_ranks);
  std::vector<std::vector<int32_t>> holders(Index(planned.num_experts));
  for (int32_t s = 0; s < current.num_slots(); ++s)
    holders[Index(current.slot_expert[Index(s)].value)].push_back(current.RankOf(SlotId(s)).value);
  std::vector<int32_t> overlap(ranks * ranks, 0);
  for (int32_t s = 0; s < planned.num_slots(); ++s)
    for (const int32_t rank : holders[Index(planned.slot_expert[Index(s)].value)])
      ++overlap[Index(rank) * ranks + Index(planned.RankOf(SlotId(s)).value)];
  for (size_t a = 0; a < ranks && ranks_per_node > 0; ++a)
    for (size_t b = 0; b < ranks; ++b)
      if (a / Index(ranks_per_node) != b / Index(ranks_per_node))
        overlap[a * ranks + b] = -planned.num_slots() - 1;
  return overlap;
}

// The assignment problem by the Hungarian method with potentials, rows one after the other.
class Hungarian {
 public:
  // cost of row r and column c: -overlap[r * n + c].
  Hungarian(const std::vector<int32_t>& overlap, size_t n)
      : overlap_(overlap),
        n_(n),
        row_potential_(n + 1, 0),
        column_potential_(n + 1, 0),
        row_of_(n + 1, n) {}

  // Matches one more row; the rows before it stay matched, maybe to other columns.
  void AddRow(size_t row) {
    Search search{std::vector<int64_t>(n_ + 1, std::numeric_limits<int64_t>::max()),
                  std::vector<size_t>(n_ + 1, n_), std::vector<bool>(n_ + 1, false)};
    size_t column = n_;
    row_of_[n_] = row;
    do {
      column = Advance(search, column);
    } while (row_of_[column] != n_);
    for (; column != n_; column = search.from[column])
      row_of_[column] = row_of_[search.from[column]];
  }

  std::vector<int32_t> ColumnOfRows() const {
    std::vector<int32_t> column_of(n_);
    for (size_t c = 0; c < n_; ++c) column_of[row_of_[c]] = static_cast<int32_t>(c);
    return column_of;
  }

 private:
  struct Search {
    std::vector<int64_t> least;  // cheapest way to each column so far
    std::vector<size_t> from;    // the column before it on that way
    std::vector<bool> used;
  };

  // Takes `column` in and returns the cheapest column that is not in yet.
  size_t Advance(Search& search, size_t column) {
    search.used[column] = true;
    const size_t at = row_of_[column];
    size_t next = n_;
    for (size_t c = 0; c < n_; ++c) {
      if (search.used[c]) continue;
      const int64_t cost = -overlap_[at * n_ + c] - row_potential_[at] - column_potential_[c];
      if (cost < search.least[c]) {
        search.least[c] = cost;
        search.from[c] = column;
      }
      if (next == n_ || search.least[c] < search.least[next]) next = c;
    }
    const int64_t delta = search.least[next];
    for (size_t c = 0; c <= n_; ++c) {
      if (search.used[c]) {
        row_potential_[row_of_[c]] += delta;
        column_potential_[c] -= delta;
      } else if (c < n_) {
        search.least[c] -= delta;
      }
    }
    return next;
  }

  const std::vector<int32_t>& overlap_;
  size_t n_;
  std::vector<int64_t> row_potential_, column_potential_;
  std::vector<size_t> row_of_;  // row matched to a column; column n is the start
};

// The planned rank for each current one with the largest sum of overlaps.
std::vector<int32_t> AssignRanks(const std::vector<int32_t>& overlap, int32_t ranks) {
  Hungarian hungarian(overlap, Index(ranks));
  for (size_t row = 0; row < Index(ranks); ++row) hungarian.AddRow(row);
  return hungarian.ColumnOfRows();
}

std::vector<int32_t> AssignRanksGreedily(const std::vector<int32_t>& overlap, int32_t ranks) {
  std::vector<bool> taken(Index(ranks), false);
  std::vector<int32_t> column_of;
  for (int32_t a = 0; a < ranks; ++a) {
    int32_t best = -1;
    for (int32_t b = 0; b < ranks; ++b) {
      if (taken[Index(b)]) continue;
      const size_t row = Index(a) * Index(ranks);
      if (best < 0 || overlap[row + Index(b)] > overlap[row + Index(best)]) best = b;
    }
    taken[Index(best)] = true;
    column_of.push_back(best);
  }
  return column_of;
}

// Writes the experts of a rank into its slots, those that are there already in place.
void FillRank(const Placement& current, std::vector<ExpertId> experts, int32_t first_slot,
              Placement& out) {
  std::vector<int32_t> open;
  for (int32_t s = first_slot; s < first_slot + out.slots_per_rank(); ++s) {
    const ExpertId held = current.slot_expert[Index(s)];
    const auto found = std::find(experts.begin(), experts.end(), held);
    if (found == experts.end()) {
      open.push_back(s);
      continue;
    }
    out.slot_expert[Index(s)] = held;
    experts.erase(found);
  }
  for (size_t i = 0; i < open.size(); ++i) out.slot_expert[Index(open[i])] = experts[i];
}

int32_t NumScenarios(const PlanOptions& options) {
  if (options.num_scenarios > 0) return options.num_scenarios;
  const int64_t affordable =
      kScenarioRoom / (int64_t{options.num_ranks} * options.num_slots) / kLanes * kLanes;
  const int64_t least = options.num_ranks < kManyRanks ? 128 : 64;
  return static_cast<int32_t>(std::clamp<int64_t>(affordable, least, 1024));
}

int64_t WorkFor(int32_t num_ranks) {
  if (num_ranks <= kFewRanks) return kMaxWorkOnFewRanks;
  return kMaxWork * std::max(num_ranks, kManyRanks) / kManyRanks;
}

// The constructive plan for all scenarios that is the better one on those recorded.
Placement StartPlan(const Scenarios& varied, const Scenarios& recorded, const PlanOptions& options,
                    const NodeRule& nodes) {
  const std::vector<double> mean = varied.Mean();
  const auto plan = [&](ReplicaRule rule) {
    return nodes.home.empty() ? ComponentPlan(mean, options.num_slots, options.num_ranks, rule)
                              : NodePlan(mean, nodes, options.num_slots, options.num_ranks, rule);
  };
  Placement best = plan(ReplicaRule::kHighestPerSlot);
  Placement other = plan(ReplicaRule::kHottestTwice);
  if (MeanOptimalImbalance(other, recorded) < MeanOptimalImbalance(best, recorded)) return other;
  return best;
}

// Variations as usual, which count most, and as many of another width.
Scenarios NarrowAndWide(const Scenarios& recorded, const PlanOptions& options, double width) {
  const int32_t half = std::max(1, NumScenarios(options) / 2);
  const Scenarios narrow = VaryScenarios(recorded, half, options.variation, options.seed);
  const Scenarios wide = VaryScenarios(recorded, half, width, options.seed + 1);
  Scenarios both{recorded.num_experts, {}, {}};
  for (int32_t i = 0; i < half; ++i) {
    both.Add(narrow.At(i), kNarrowWeight * narrow.weights[Index(i)]);
    both.Add(wide.At(i), wide.weights[Index(i)]);
  }
  return both;
}

// A placement on its way to a plan, and the rule it keeps.
struct Draft {
  Placement placement;
  NodeRule nodes;
};

// Makes `draft` better for the scenarios within `max_work`, and takes what it needed off
// `work_left`. Returns the objective.
double Search(const Scenarios& scenarios, const PlanOptions& options, int64_t max_work,
              int64_t& work_left, Draft& draft) {
  PlanSearch search(scenarios, draft.placement,
                    {.max_moves = options.max_moves,
                     .max_idle_moves = kMaxIdleMoves,
                     .max_work = max_work,
                     .seed = options.seed,
                     .fetch_price = options.fetch_price,
                     .current = options.current,
                     .tail = options.tail,
                     .nodes = draft.nodes});
  search.Run();
  draft.placement = search.placement();
  work_left -= search.work();
  return search.objective();
}

// Searches for `varied`, then, as long as they are solved, for wider variations, too.
void SearchEverWider(Scenarios varied, const Scenarios& recorded, const PlanOptions& options,
                     int64_t& work_left, Draft& draft) {
  double variation = options.variation;
  for (int widenings = 0; Search(varied, options, work_left, work_left, draft) < kSolved;
       ++widenings) {
    if (widenings == kMaxWidenings || work_left <= 0) break;
    variation *= 2;
    varied = NarrowAndWide(recorded, options, variation);
  }
}

void CheckPrice(const PlanOptions& options, int32_t num_experts) {
  if (!std::isfinite(options.fetch_price) || options.fetch_price < 0)
    Throw(ErrorKind::kInvalid, "scenario plan: fetch_price is {}; allowed: 0 or more",
          options.fetch_price);
  if (options.fetch_price == 0) return;
  const Placement* current = options.current;
  if (current == nullptr)
    Throw(ErrorKind::kInvalid, "scenario plan: fetch_price is {}, but nothing is in the slots yet",
          options.fetch_price);
  ValidatePlacement(*current, "scenario plan: the current placement");
  if (current->num_slots() != options.num_slots || current->num_ranks != options.num_ranks ||
      current->num_experts != num_experts)
    Throw(ErrorKind::kInvalid,
          "scenario plan: the current placement has {} experts in {} slots on {} ranks; a "
          "fetch_price needs one with {}, {} and {}",
          current->num_experts, current->num_slots(), current->num_ranks, num_experts,
          options.num_slots, options.num_ranks);
}

// What the slots hold now, with the homes it tells; nothing when it breaks the rule of nodes.
std::optional<Draft> DraftOfCurrent(const PlanOptions& options, int32_t max_cross_slots) {
  Draft draft{*options.current, HomesOf(*options.current, options.nodes)};
  if (draft.nodes.home.empty()) return draft;
  draft.nodes.max_cross_slots = max_cross_slots;
  const NodeSlots slots = CountNodeSlots(draft.placement, draft.nodes);
  if (slots.num_crossing > max_cross_slots) return std::nullopt;
  if (std::count(slots.at_home.begin(), slots.at_home.end(), 0) > 0) return std::nullopt;
  return draft;
}

// A search hardly takes back the fetches of a plan made anew: a part of the work goes from there, a
// part from what the slots hold now, and what is better then, price included, goes on.
void ChooseStart(const Scenarios& scenarios, const PlanOptions& options, int32_t max_cross_slots,
                 int64_t& work_left, Draft& draft) {
  std::optional<Draft> current = DraftOfCurrent(options, max_cross_slots);
  if (!current) return;
  const int64_t work = work_left / kStartShare;
  const double anew = Search(scenarios, options, work, work_left, draft);
  if (Search(scenarios, options, work, work_left, *current) <= anew) draft = std::move(*current);
}

// Renames ranks and orders slots so that what stays on its rank is not moved; never fetches more.
Placement KeepInPlace(const Placement& current, const Placement& planned, int32_t ranks_per_node) {
  Placement renamed = RelabelRanks(current, planned, ranks_per_node);
  if (CountFetchedSlots(current, renamed) <= CountFetchedSlots(current, planned)) return renamed;
  return KeepSlots(current, planned);
}

}  // namespace

Scenarios VaryScenarios(const Scenarios& recorded, int32_t count, double variation, uint64_t seed) {
  Scenarios varied{recorded.num_experts, {}, {}};
  std::vector<int32_t> with_load;
  for (int32_t i = 0; i < recorded.size(); ++i) {
    const std::span<const double> load = recorded.At(i);
    if (std::accumulate(load.begin(), load.end(), 0.0) > 0) with_load.push_back(i);
  }
  if (with_load.empty()) return varied;
  Random random(seed);
  const int64_t num_loads = std::ssize(with_load);
  const int64_t originals = std::min<int64_t>(num_loads, count);
  int64_t recorded_so_far = 0;
  for (int64_t i = 0; i < count; ++i) {
    const bool is_recorded = (i + 1) * originals / count > recorded_so_far;
    const int64_t turn = is_recorded ? recorded_so_far++ : (i - recorded_so_far) % originals;
    const int32_t base = with_load[Index(turn * num_loads / originals)];
    const std::span<const double> load = recorded.At(base);
    std::vector<double> scaled(load.begin(), load.end());
    if (!is_recorded)
      for (double& tokens : scaled) tokens *= std::exp(variation * random.Normal());
    const double sum = std::accumulate(scaled.begin(), scaled.end(), 0.0);
    for (double& tokens : scaled) tokens /= sum;
    varied.Add(scaled, recorded.weights[Index(base)]);
  }
  return varied;
}

Placement KeepSlots(const Placement& current, const Placement& planned) {
  Placement out = planned;
  const int32_t slots = planned.slots_per_rank();
  for (int32_t r = 0; r < planned.num_ranks; ++r) {
    const auto begin = planned.slot_expert.begin() + int64_t{r} * slots;
    FillRank(current, {begin, begin + slots}, r * slots, out);
  }
  return out;
}

Placement RelabelRanks(const Placement& current, const Placement& planned, int32_t ranks_per_node) {
  const std::vector<int32_t> overlap = Overlaps(current, planned, ranks_per_node);
  const std::vector<int32_t> planned_rank = planned.num_ranks <= kMaxOptimalRanks
                                                ? AssignRanks(overlap, planned.num_ranks)
                                                : AssignRanksGreedily(overlap, planned.num_ranks);
  Placement renamed = planned;
  const int32_t slots = planned.slots_per_rank();
  for (int32_t r = 0; r < planned.num_ranks; ++r)
    std::copy_n(planned.slot_expert.begin() + int64_t{planned_rank[Index(r)]} * slots, slots,
                renamed.slot_expert.begin() + int64_t{r} * slots);
  return KeepSlots(current, renamed);
}

Placement PlanPlacement(const Scenarios& scenarios, const PlanOptions& options) {
  ValidateSizes(scenarios.num_experts, options.num_slots, options.num_ranks, "scenario plan");
  CheckPrice(options, scenarios.num_experts);
  const Scenarios varied =
      VaryScenarios(scenarios, NumScenarios(options), options.variation, options.seed);
  if (varied.size() == 0)
    Throw(ErrorKind::kInvalid, "scenario plan: {} scenarios are given, none with load",
          scenarios.size());
  const int32_t cross_slots =
      options.max_cross_slots < 0 ? options.nodes.num_nodes : options.max_cross_slots;
  Draft draft{{}, MakeNodeRule(varied, options.nodes, options.num_ranks, cross_slots)};
  draft.placement = StartPlan(varied, scenarios, options, draft.nodes);
  const int32_t ranks_per_node = draft.nodes.ranks_per_node;
  if (options.current != nullptr)
    draft.placement = RelabelRanks(*options.current, draft.placement, ranks_per_node);
  int64_t work_left = WorkFor(options.num_ranks);
  if (options.fetch_price > 0) ChooseStart(varied, options, cross_slots, work_left, draft);
  if (options.max_moves > 0) SearchEverWider(varied, scenarios, options, work_left, draft);
  return options.fetch_price > 0 ? KeepInPlace(*options.current, draft.placement, ranks_per_node)
                                 : draft.placement;
}

}  // namespace wideload::eplb
