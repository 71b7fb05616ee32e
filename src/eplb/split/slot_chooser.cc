#include "eplb/split/slot_chooser.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "eplb/placement/index.h"
#include "eplb/split/token_to_replica.h"

namespace wideload::eplb {

SplitMode ParseSplitMode(std::string_view name) {
  if (name == "optimal") return SplitMode::kOptimal;
  if (name == "round_robin") return SplitMode::kRoundRobin;
  if (name == "first") return SplitMode::kFirst;
  Throw(ErrorKind::kInvalid, "split is \"{}\"; allowed: optimal, round_robin, first", name);
}

SlotChooser::SlotChooser(const Placement& placement, SplitMode mode, int32_t num_sources)
    : placement_(placement),
      table_(MakeRoutingTable(placement)),
      mode_(mode),
      num_sources_(num_sources),
      split_(placement),
      quotas_(placement.slot_expert.size(), 0),
      totals_(Index(placement.num_experts), 0),
      arrivals_(Index(placement.num_experts), 0) {
  WIDELOAD_CHECK(num_sources >= placement.num_ranks && num_sources % placement.num_ranks == 0,
                 "{} sources of {} ranks", num_sources, placement.num_ranks);
  const SplitGraph& graph = split_.graph();
  const size_t shared = Index(graph.num_shared());
  shared_counts_.resize(shared * Index(num_sources));
  left_quota_.resize(Index(graph.num_edges()));
  runs_.resize(Index(graph.num_edges()) + shared);
  run_cursor_.assign(shared, -1);
}

void SlotChooser::Prepare(std::span<const int32_t> counts) {
  if (mode_ != SplitMode::kOptimal) return;
  const SplitGraph& graph = split_.graph();
  const size_t experts = Index(graph.num_experts);
  WIDELOAD_CHECK(counts.size() == experts * Index(num_sources_),
                 "{} counts for {} sources and {} experts", counts.size(), num_sources_, experts);
  std::fill(totals_.begin(), totals_.end(), 0);
  for (size_t r = 0; r < Index(num_sources_); ++r) {
    const std::span<const int32_t> row = counts.subspan(r * experts, experts);
    for (size_t e = 0; e < experts; ++e) totals_[e] += row[e];
    for (size_t i = 0; i < Index(graph.num_shared()); ++i)
      shared_counts_[i * Index(num_sources_) + r] = row[Index(graph.shared_expert[i])];
  }
  const std::span<const int32_t> quotas = split_.Solve(totals_);
  std::copy(quotas.begin(), quotas.end(), quotas_.begin());
}

void SlotChooser::ChooseSlots(EpRank source, std::span<const int32_t> expert_ids,
                              std::span<int32_t> slots) {
  WIDELOAD_CHECK(slots.size() == expert_ids.size(), "{} slots for {} entries", slots.size(),
                 expert_ids.size());
  switch (mode_) {
    case SplitMode::kOptimal:
      return ChooseOptimal(source, expert_ids, slots);
    case SplitMode::kRoundRobin:
      return ChooseReplicasInTurn(table_, {.source = source}, expert_ids, arrivals_, slots);
    case SplitMode::kFirst:
      for (size_t i = 0; i < slots.size(); ++i)
        slots[i] = expert_ids[i] < 0 ? -1 : table_.SlotsOf(ExpertId(expert_ids[i]))[0].value;
  }
}

// Every source gives its home's replica what the quota and earlier sources allow; what is left of
// tokens meets what is left of quotas in the order of sources and of slots.
void SlotChooser::MakeRuns(int32_t shared, int32_t source) {
  const SplitGraph& graph = split_.graph();
  const int32_t begin = graph.edge_begin[Index(shared)];
  const int32_t end = graph.edge_begin[Index(shared) + 1];
  const std::span<const int32_t> by_source(
      shared_counts_.data() + Index(shared) * Index(num_sources_), Index(num_sources_));
  const size_t first_run = Index(begin + shared);
  std::fill_n(runs_.begin() + begin + shared, end - begin + 1, Run{});

  int32_t before = 0;  // tokens of earlier sources that find no local replica
  for (int32_t r = 0; r < source; ++r) before += by_source[Index(r)];
  int32_t own_local = 0;
  for (int32_t e = begin; e < end; ++e) {
    int32_t left = quotas_[Index(graph.edge_slot[Index(e)])];
    for (int32_t s = graph.edge_rank[Index(e)]; s < num_sources_; s += graph.num_ranks) {
      const int32_t local = std::min(left, by_source[Index(s)]);
      left -= local;
      if (s < source) before -= local;
      if (s != source) continue;
      own_local = local;
      runs_[first_run] = {graph.edge_slot[Index(e)], local};
    }
    left_quota_[Index(e)] = left;
  }
  int32_t left = by_source[Index(source)] - own_local;
  for (int32_t e = begin; e < end && left > 0; ++e) {
    const int32_t skipped = std::min(before, left_quota_[Index(e)]);
    before -= skipped;
    const int32_t taken = std::min(left, left_quota_[Index(e)] - skipped);
    left -= taken;
    runs_[first_run + 1 + Index(e - begin)] = {graph.edge_slot[Index(e)], taken};
  }
  run_cursor_[Index(shared)] = static_cast<int32_t>(first_run);
}

int32_t SlotChooser::NextSlotOfShared(int32_t shared, int32_t source) {
  int32_t& cursor = run_cursor_[Index(shared)];
  if (cursor < 0) MakeRuns(shared, source);
  if (runs_[Index(cursor)].tokens == 0) {
    const int32_t end = split_.graph().edge_begin[Index(shared) + 1] + shared + 1;
    while (cursor < end && runs_[Index(cursor)].tokens == 0) ++cursor;
    WIDELOAD_CHECK(cursor < end, "rank {} routes more tokens to expert {} than it counted", source,
                   split_.graph().shared_expert[Index(shared)]);
  }
  Run& run = runs_[Index(cursor)];
  --run.tokens;
  return run.slot;
}

void SlotChooser::ChooseOptimal(EpRank source, std::span<const int32_t> expert_ids,
                                std::span<int32_t> slots) {
  const SplitGraph& graph = split_.graph();
  std::fill(run_cursor_.begin(), run_cursor_.end(), -1);
  for (size_t i = 0; i < slots.size(); ++i) {
    const int32_t expert = expert_ids[i];
    if (expert < 0) {
      slots[i] = -1;
      continue;
    }
    const int32_t slot = graph.single_slot[Index(expert)];
    slots[i] = slot >= 0 ? slot : NextSlotOfShared(graph.shared_index[Index(expert)], source.value);
  }
}

// Walks the circle of the expert's quotas, each slot an arc of it, by a step near the golden ratio:
// any stretch of tokens meets the arcs in about their proportion.
int32_t SlotChooser::SlotInProportion(int32_t shared, int32_t source, int32_t token) const {
  const SplitGraph& graph = split_.graph();
  const std::span<const int32_t> edge_slots =
      std::span(graph.edge_slot)
          .subspan(Index(graph.edge_begin[Index(shared)]),
                   Index(graph.edge_begin[Index(shared) + 1] - graph.edge_begin[Index(shared)]));
  double total = 0;
  for (const int32_t slot : edge_slots) total += quotas_[Index(slot)];
  // Nobody has counted it: all slots alike.
  const auto share = [&](int32_t slot) {
    return total > 0 ? quotas_[Index(slot)] / total : 1.0 / static_cast<double>(edge_slots.size());
  };
  constexpr double kGolden = 0.6180339887498949;
  const double place = kGolden * token + static_cast<double>(source) / graph.num_ranks;
  double left = place - std::floor(place);
  int32_t last = edge_slots.front();
  for (const int32_t slot : edge_slots) {
    if (share(slot) == 0) continue;
    last = slot;
    left -= share(slot);
    if (left < 0) break;
  }
  return last;
}

void SlotChooser::ChooseSlotsInProportion(EpRank source, std::span<const int32_t> expert_ids,
                                          std::span<int32_t> slots) {
  if (mode_ != SplitMode::kOptimal) return ChooseSlots(source, expert_ids, slots);
  WIDELOAD_CHECK(slots.size() == expert_ids.size(), "{} slots for {} entries", slots.size(),
                 expert_ids.size());
  const SplitGraph& graph = split_.graph();
  std::fill(arrivals_.begin(), arrivals_.end(), 0);
  for (size_t i = 0; i < slots.size(); ++i) {
    const int32_t expert = expert_ids[i];
    if (expert < 0) {
      slots[i] = -1;
      continue;
    }
    const int32_t shared = graph.shared_index[Index(expert)];
    slots[i] = shared < 0 ? graph.single_slot[Index(expert)]
                          : SlotInProportion(shared, source.value, arrivals_[Index(expert)]++);
  }
}

}  // namespace wideload::eplb
