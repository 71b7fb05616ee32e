#include "eplb/placement/placement.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/error.h"

namespace wideload::eplb {
namespace {

// SplitMix64 (Steele, Lea, Flood 2014): the same numbers on every platform.
uint64_t NextRandom(uint64_t& state) {
  uint64_t z = (state += 0x9e3779b97f4a7c15U);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
  return z ^ (z >> 31);
}

// The smallest number of slots that gives every expert one and every rank as many.
int64_t FewestSlots(int32_t num_experts, int32_t num_ranks) {
  return (int64_t{num_experts} + num_ranks - 1) / num_ranks * num_ranks;
}

}  // namespace

void ValidateSizes(int32_t num_experts, int32_t num_slots, int32_t num_ranks,
                   const std::string& where) {
  if (num_ranks >= 1 && num_experts >= 1 && num_slots >= num_experts && num_slots % num_ranks == 0)
    return;
  const std::string least =
      num_ranks < 1 ? "" : fmt::format(", {} at the least", FewestSlots(num_experts, num_ranks));
  Throw(ErrorKind::kInvalid,
        "{}: num_slots is {}; it must be at least {} (experts) and a multiple of {} (ep_size){}",
        where, num_slots, num_experts, num_ranks, least);
}

void ValidatePlacement(const Placement& placement, const std::string& where) {
  ValidateSizes(placement.num_experts, placement.num_slots(), placement.num_ranks, where);
  std::vector<bool> seen(static_cast<size_t>(placement.num_experts), false);
  for (int32_t s = 0; s < placement.num_slots(); ++s) {
    const int32_t expert = placement.slot_expert[static_cast<size_t>(s)].value;
    if (expert < 0 || expert >= placement.num_experts)
      Throw(ErrorKind::kInvalid, "{}: slot {} holds expert {}; allowed: 0 to {}", where, s, expert,
            placement.num_experts - 1);
    seen[static_cast<size_t>(expert)] = true;
  }
  const auto missing = std::find(seen.begin(), seen.end(), false);
  if (missing != seen.end())
    Throw(ErrorKind::kInvalid, "{}: expert {} has no slot; every expert needs at least one", where,
          missing - seen.begin());
}

RoutingTable MakeRoutingTable(const Placement& placement) {
  RoutingTable table;
  table.offsets.assign(static_cast<size_t>(placement.num_experts) + 1, 0);
  for (const ExpertId expert : placement.slot_expert)
    ++table.offsets[static_cast<size_t>(expert.value) + 1];
  std::partial_sum(table.offsets.begin(), table.offsets.end(), table.offsets.begin());
  std::vector<int32_t> next(table.offsets.begin(), table.offsets.end() - 1);
  table.slots.resize(placement.slot_expert.size());
  for (int32_t s = 0; s < placement.num_slots(); ++s) {
    const auto expert = static_cast<size_t>(placement.slot_expert[static_cast<size_t>(s)].value);
    table.slots[static_cast<size_t>(next[expert]++)] = SlotId(s);
  }
  return table;
}

Placement ContiguousPlacement(int32_t num_experts, int32_t num_slots, int32_t num_ranks) {
  ValidateSizes(num_experts, num_slots, num_ranks, "contiguous placement");
  Placement placement{num_experts, num_ranks, {}};
  const int32_t slots_per_rank = num_slots / num_ranks;
  for (int32_t r = 0; r < num_ranks; ++r) {
    const auto first = static_cast<int32_t>(int64_t{r} * num_experts / num_ranks);
    for (int32_t j = 0; j < slots_per_rank; ++j)
      placement.slot_expert.emplace_back((first + j) % num_experts);
  }
  return placement;
}

Placement RandomPlacement(int32_t num_experts, int32_t num_slots, int32_t num_ranks,
                          uint64_t seed) {
  ValidateSizes(num_experts, num_slots, num_ranks, "random placement");
  Placement placement{num_experts, num_ranks, {}};
  uint64_t state = seed;
  for (int32_t s = 0; s < num_slots; ++s) {
    const bool spare = s >= num_experts;
    const uint64_t expert =
        spare ? NextRandom(state) % static_cast<uint64_t>(num_experts) : static_cast<uint64_t>(s);
    placement.slot_expert.emplace_back(static_cast<int32_t>(expert));
  }
  for (size_t i = placement.slot_expert.size(); i > 1; --i)
    std::swap(placement.slot_expert[i - 1], placement.slot_expert[NextRandom(state) % i]);
  return placement;
}

double ImbalanceRatio(std::span<const double> rank_loads) {
  const double sum = std::accumulate(rank_loads.begin(), rank_loads.end(), 0.0);
  if (rank_loads.empty() || sum <= 0) return 0;
  const double mean = sum / static_cast<double>(rank_loads.size());
  return (*std::max_element(rank_loads.begin(), rank_loads.end()) - mean) / mean;
}

}  // namespace wideload::eplb
