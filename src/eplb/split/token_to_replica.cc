#include "eplb/split/token_to_replica.h"

#include <algorithm>

#include "base/error.h"

namespace wideload::eplb {

void ChooseReplicasInTurn(const RoutingTable& table, const TokenToReplicaOptions& options,
                          std::span<const int32_t> expert_ids, std::span<int32_t> seen,
                          std::span<int32_t> slots) {
  const auto num_experts = static_cast<int32_t>(table.offsets.size()) - 1;
  WIDELOAD_CHECK(slots.size() == expert_ids.size() && std::ssize(seen) == num_experts,
                 "{} ids, {} slots, {} counters for {} experts", expert_ids.size(), slots.size(),
                 seen.size(), num_experts);
  for (size_t i = 0; i < expert_ids.size(); ++i) {
    const auto block = static_cast<int64_t>(i) / kTokenToReplicaBlock;
    if (static_cast<int64_t>(i) % kTokenToReplicaBlock == 0) std::fill(seen.begin(), seen.end(), 0);
    const int32_t expert = expert_ids[i];
    if (expert < 0 || expert >= num_experts) {
      slots[i] = options.invalid_slot;
      continue;
    }
    const std::span<const SlotId> replicas = table.SlotsOf(ExpertId(expert));
    const int64_t turn = seen[static_cast<size_t>(expert)]++ + block + options.source.value;
    slots[i] = replicas[static_cast<size_t>(turn) % replicas.size()].value;
  }
}

}  // namespace wideload::eplb
