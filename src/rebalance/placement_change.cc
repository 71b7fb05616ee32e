#include "rebalance/placement_change.h"

namespace wideload::rebalance {
namespace {

constexpr uint64_t kOffset = 0xcbf29ce484222325U;
constexpr uint64_t kPrime = 0x100000001b3U;

uint64_t Append(uint64_t digest, uint64_t value) {
  for (int shift = 0; shift < 64; shift += 8)
    digest = (digest ^ ((value >> shift) & 0xff)) * kPrime;
  return digest;
}

}  // namespace

uint64_t DigestOf(const PlacementChange& change) {
  uint64_t digest = Append(kOffset, static_cast<uint64_t>(change.generation));
  for (const LayerChange& layer : change.layers) {
    digest = Append(digest, static_cast<uint64_t>(layer.moe_layer));
    digest = Append(digest, static_cast<uint64_t>(layer.placement.num_experts));
    digest = Append(digest, static_cast<uint64_t>(layer.placement.num_ranks));
    digest = Append(digest, layer.placement.slot_expert.size());
    for (const ExpertId expert : layer.placement.slot_expert)
      digest = Append(digest, static_cast<uint64_t>(expert.value));
  }
  return digest;
}

}  // namespace wideload::rebalance
