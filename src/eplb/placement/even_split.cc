#include "eplb/placement/even_split.h"

#include <set>

#include "base/error.h"

namespace wideload::eplb {

std::vector<double> EvenSplitRankLoads(const Placement& placement, std::span<const double> loads) {
  WIDELOAD_CHECK(std::ssize(loads) == placement.num_experts, "{} loads for {} experts",
                 loads.size(), placement.num_experts);
  std::vector<int32_t> replicas(loads.size(), 0);
  for (const ExpertId expert : placement.slot_expert) ++replicas[static_cast<size_t>(expert.value)];
  std::vector<double> rank_loads(static_cast<size_t>(placement.num_ranks), 0);
  for (int32_t s = 0; s < placement.num_slots(); ++s) {
    const auto e = static_cast<size_t>(placement.slot_expert[static_cast<size_t>(s)].value);
    rank_loads[static_cast<size_t>(placement.RankOf(SlotId(s)).value)] += loads[e] / replicas[e];
  }
  return rank_loads;
}

double EvenSplitImbalance(const Placement& placement, std::span<const double> loads) {
  return ImbalanceRatio(EvenSplitRankLoads(placement, loads));
}

int32_t CountDuplicateSlots(const Placement& placement) {
  int32_t duplicates = 0;
  std::vector<int32_t> last_rank(static_cast<size_t>(placement.num_experts), -1);
  for (int32_t s = 0; s < placement.num_slots(); ++s) {
    const ExpertId expert = placement.slot_expert[static_cast<size_t>(s)];
    int32_t& last = last_rank[static_cast<size_t>(expert.value)];
    const int32_t rank = placement.RankOf(SlotId(s)).value;
    if (last == rank) ++duplicates;
    last = rank;
  }
  return duplicates;
}

int32_t CountChangedSlots(const Placement& before, const Placement& after) {
  WIDELOAD_CHECK(before.num_slots() == after.num_slots(), "{} slots before, {} after",
                 before.num_slots(), after.num_slots());
  int32_t changed = 0;
  for (size_t s = 0; s < before.slot_expert.size(); ++s)
    if (before.slot_expert[s] != after.slot_expert[s]) ++changed;
  return changed;
}

int32_t CountFetchedSlots(const Placement& before, const Placement& after) {
  WIDELOAD_CHECK(before.num_ranks == after.num_ranks, "placements on {} and {} ranks",
                 before.num_ranks, after.num_ranks);
  const auto experts_of = [](const Placement& placement, int32_t rank) {
    const auto begin = placement.slot_expert.begin() + int64_t{rank} * placement.slots_per_rank();
    return std::multiset<ExpertId>(begin, begin + placement.slots_per_rank());
  };
  int32_t fetched = 0;
  for (int32_t rank = 0; rank < after.num_ranks; ++rank) {
    const std::multiset<ExpertId> held = experts_of(before, rank);
    for (const ExpertId expert : experts_of(after, rank)) fetched += !held.contains(expert);
  }
  return fetched;
}

}  // namespace wideload::eplb
