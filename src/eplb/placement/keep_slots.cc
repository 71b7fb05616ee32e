#include "eplb/placement/keep_slots.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "base/error.h"
#include "eplb/placement/even_split.h"
#include "eplb/placement/index.h"

namespace wideload::eplb {
namespace {

// The assignment of ranks costs ranks^3; beyond this the greedy one is taken.
constexpr int32_t kMaxOptimalRanks = 256;

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

}  // namespace

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

Placement KeepInPlace(const Placement& current, const Placement& planned, int32_t ranks_per_node) {
  Placement renamed = RelabelRanks(current, planned, ranks_per_node);
  if (CountFetchedSlots(current, renamed) <= CountFetchedSlots(current, planned)) return renamed;
  return KeepSlots(current, planned);
}

void CheckFetchPrice(double price, const Placement* current, const PricedPlan& plan) {
  if (!std::isfinite(price) || price < 0)
    Throw(ErrorKind::kInvalid, "{}: fetch_price is {}; allowed: 0 or more", plan.what, price);
  if (price == 0) return;
  if (current == nullptr)
    Throw(ErrorKind::kInvalid, "{}: fetch_price is {}, but nothing is in the slots yet", plan.what,
          price);
  ValidatePlacement(*current, plan.what + ": the current placement");
  if (current->num_slots() != plan.sizes.num_slots || current->num_ranks != plan.sizes.num_ranks ||
      current->num_experts != plan.num_experts)
    Throw(ErrorKind::kInvalid,
          "{}: the current placement has {} experts in {} slots on {} ranks; a fetch_price needs "
          "one with {}, {} and {}",
          plan.what, current->num_experts, current->num_slots(), current->num_ranks,
          plan.num_experts, plan.sizes.num_slots, plan.sizes.num_ranks);
}

}  // namespace wideload::eplb
