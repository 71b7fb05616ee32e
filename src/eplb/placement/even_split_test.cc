#include "eplb/placement/even_split.h"

#include <gtest/gtest.h>

namespace wideload::eplb {
namespace {

// Slots 0 0 1 | 1 2 3.
const Placement kTwoDoubled{
    4, 2, {ExpertId(0), ExpertId(0), ExpertId(1), ExpertId(1), ExpertId(2), ExpertId(3)}};

TEST(EvenSplitRankLoads, SharesAnExpertEquallyAmongItsSlots) {
  EXPECT_EQ(EvenSplitRankLoads(kTwoDoubled, std::vector<double>{8, 2, 3, 1}),
            (std::vector<double>{9, 5}));
}

TEST(CountDuplicateSlots, CountsSecondCopiesOnOneRank) {
  EXPECT_EQ(CountDuplicateSlots(kTwoDoubled), 1);
  EXPECT_EQ(CountDuplicateSlots(ContiguousPlacement(4, 6, 2)), 0);
}

TEST(CountChangedSlots, ComparesSlotBySlot) {
  EXPECT_EQ(CountChangedSlots(kTwoDoubled, kTwoDoubled), 0);
  EXPECT_EQ(CountChangedSlots(ContiguousPlacement(4, 6, 2), kTwoDoubled), 5);
}

}  // namespace
}  // namespace wideload::eplb
