#include "eplb/policies/tensorrt_llm_policy.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "eplb/policies/tournament.h"

namespace wideload::eplb {
namespace {

using HottestExpert = Tournament<TieWinner::kHighestIndex>;
using LeastLoadedRank = Tournament<TieWinner::kLowestIndex>;

void CheckLoads(std::span<const float> loads) {
  for (size_t e = 0; e < loads.size(); ++e)
    if (!(loads[e] >= 0) || std::isinf(loads[e]))
      Throw(ErrorKind::kInvalid, "the load of expert {} is {}; it must be finite and at least 0", e,
            loads[e]);
}

}  // namespace

std::vector<int32_t> TensorRtLlmReplicaCounts(std::span<const float> loads, int32_t num_slots) {
  const auto num_experts = static_cast<int32_t>(loads.size());
  CheckLoads(loads);
  if (num_experts == 0 || num_slots < num_experts)
    Throw(ErrorKind::kInvalid, "num_slots is {}; it must be at least {} (experts)", num_slots,
          std::max(num_experts, 1));
  std::vector<int32_t> counts(loads.size(), 1);
  if (num_slots == num_experts) return counts;
  if (std::accumulate(loads.begin(), loads.end(), 0.0) == 0) {
    for (int32_t e = 0; e < num_experts; ++e)
      counts[static_cast<size_t>(e)] =
          num_slots / num_experts + (e < num_slots % num_experts ? 1 : 0);
    return counts;
  }
  std::vector<uint64_t> keys(loads.size());
  std::transform(loads.begin(), loads.end(), keys.begin(), LargestFirst);
  HottestExpert hottest(keys);
  for (int32_t spare = num_slots - num_experts; spare > 0; --spare) {
    const int32_t expert = hottest.Winner();
    const auto e = static_cast<size_t>(expert);
    ++counts[e];
    hottest.Change(expert, LargestFirst(double{loads[e]} / counts[e]));
  }
  return counts;
}

Placement TensorRtLlmPlacement(std::span<const float> loads, std::span<const int32_t> replicas,
                               int32_t num_ranks) {
  CheckLoads(loads);
  WIDELOAD_CHECK(loads.size() == replicas.size(), "{} loads, {} replica counts", loads.size(),
                 replicas.size());
  if (std::any_of(replicas.begin(), replicas.end(), [](int32_t n) { return n < 1; }))
    Throw(ErrorKind::kInvalid, "a replica count is below 1; every expert needs at least one slot");
  const auto num_experts = static_cast<int32_t>(loads.size());
  const int32_t num_slots = std::accumulate(replicas.begin(), replicas.end(), 0);
  ValidateSizes(num_experts, num_slots, num_ranks, "TensorRT-LLM placement");
  std::vector<uint64_t> keys(loads.size());
  for (size_t e = 0; e < keys.size(); ++e) keys[e] = LargestFirst(double{loads[e]} / replicas[e]);

  const int32_t slots_per_rank = num_slots / num_ranks;
  Placement placement{num_experts, num_ranks, {}};
  placement.slot_expert.resize(static_cast<size_t>(num_slots));
  std::vector<int32_t> used(static_cast<size_t>(num_ranks), 0);
  std::vector<double> rank_loads(static_cast<size_t>(num_ranks), 0);
  LeastLoadedRank ranks(std::vector<uint64_t>(rank_loads.size(), SmallestFirst(0)));
  for (const int32_t expert : SortedByKey(keys)) {
    const auto e = static_cast<size_t>(expert);
    const double load = double{loads[e]} / replicas[e];
    for (int32_t i = 0; i < replicas[e]; ++i) {
      const int32_t rank = ranks.Winner();
      const auto r = static_cast<size_t>(rank);
      placement
          .slot_expert[r * static_cast<size_t>(slots_per_rank) + static_cast<size_t>(used[r])] =
          ExpertId(expert);
      rank_loads[r] += load;
      const bool is_full = ++used[r] == slots_per_rank;
      ranks.Change(rank, is_full ? LeastLoadedRank::kLast : SmallestFirst(rank_loads[r]));
    }
  }
  return placement;
}

Placement TensorRtLlmPlacement(std::span<const float> loads, int32_t num_slots, int32_t num_ranks) {
  ValidateSizes(static_cast<int32_t>(loads.size()), num_slots, num_ranks, "TensorRT-LLM placement");
  return TensorRtLlmPlacement(loads, TensorRtLlmReplicaCounts(loads, num_slots), num_ranks);
}

}  // namespace wideload::eplb
