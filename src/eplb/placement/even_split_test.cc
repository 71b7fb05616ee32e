#include "eplb/placement/even_split.h"

#include <gtest/gtest.h>

namespace wideload::eplb {
namespace {

// Slots 0 0 1 | 1 2 3.
const Placement kPlacement{
    4, 2, {ExpertId(0), ExpertId(0), ExpertId(1), ExpertId(1), ExpertId(2), ExpertId(3)}};

TEST(EvenSplitRankLoads, SharesAnExpertEquallyAmongItsSlots) {
  EXPECT_EQ(EvenSplitRankLoads(kPlacement, std::vector<double>{8, 2, 3, 1}),
            (std::vector<double>{9, 5}));
}

TEST(CountDuplicateSlots, CountsSecondCopiesOnOneRank) {
  EXPECT_EQ(CountDuplicateSlots(kPlacement), 1);
  EXPECT_EQ(CountDuplicateSlots(ContiguousPlacement(4, 6, 2)), 0);
}

TEST(CountChangedSlots, ComparesSlotBySlot) {
  EXPECT_EQ(CountChangedSlots(kPlacement, kPlacement), 0);
  EXPECT_EQ(CountChangedSlots(ContiguousPlacement(4, 6, 2), kPlacement), 5);
}

}  // namespace
}  // namespace wideload::eplb
