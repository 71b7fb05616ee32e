// The split of a chunk is on the path of every layer: once its objects are warm it takes nothing
// from the heap.
#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "eplb/placement/random.h"
#include "eplb/split/slot_chooser.h"
#include "eplb/split/water_filling.h"
#include "support/allocations.h"

namespace wideload::eplb {
namespace {

TEST(SlotChooser, AllocatesNothingFromTheSecondChunkOn) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    Random random(seed);
    const int32_t ranks = 1 + random.Below(9);
    const int32_t slots = ranks * (1 + random.Below(9));
    const Placement placement = RandomPlacement(1 + random.Below(slots), slots, ranks, seed);
    const auto experts = static_cast<size_t>(placement.num_experts);
    std::vector<int32_t> counts, entries;
    std::vector<double> loads(experts);
    for (size_t i = 0; i < static_cast<size_t>(ranks) * experts; ++i) {
      counts.push_back(random.Below(20));
      loads[i % experts] += counts.back();
      if (i < experts)
        entries.insert(entries.end(), static_cast<size_t>(counts.back()), static_cast<int32_t>(i));
    }
    std::vector<int32_t> chosen(entries.size());
    SlotChooser chooser(placement, SplitMode::kOptimal);
    WaterFilling split(placement);
    int64_t before = 0;
    for (const bool warm : {false, true}) {
      if (warm) before = testing_support::NumAllocations();
      chooser.Prepare(counts);
      chooser.ChooseSlots(EpRank(0), entries, chosen);
      split.Solve(loads);
    }
    ASSERT_EQ(testing_support::NumAllocations() - before, 0) << "seed " << seed;
  }
}

}  // namespace
}  // namespace wideload::eplb
