#include "moe/placement_table.h"

#include <utility>

namespace wideload::moe {
namespace {

uint64_t AddToDigest(uint64_t digest, int64_t value) {
  digest = (digest ^ static_cast<uint64_t>(value)) * 0x9E3779B97F4A7C15ULL;
  return digest ^ (digest >> 29);
}

}  // namespace

SharedPlacements MakePlacementTable(int64_t generation, std::vector<eplb::Placement> placements) {
  auto table = std::make_shared<PlacementTable>();
  uint64_t digest = AddToDigest(0, generation);
  for (const eplb::Placement& placement : placements) {
    digest = AddToDigest(AddToDigest(digest, placement.num_slots()), placement.num_ranks);
    for (const ExpertId expert : placement.slot_expert) digest = AddToDigest(digest, expert.value);
  }
  table->generation = generation;
  table->placements = std::move(placements);
  table->digest = digest;
  return table;
}

}  // namespace wideload::moe
