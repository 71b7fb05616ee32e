#include "eplb/placement/placement.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace wideload::eplb {
namespace {

std::vector<int32_t> Ids(const Placement& placement) {
  std::vector<int32_t> ids;
  for (const ExpertId expert : placement.slot_expert) ids.push_back(expert.value);
  return ids;
}

TEST(ContiguousPlacement, GivesRedundantSlotsTheNextRanksFirstExperts) {
  EXPECT_EQ(Ids(ContiguousPlacement(4, 4, 2)), (std::vector<int32_t>{0, 1, 2, 3}));
  EXPECT_EQ(Ids(ContiguousPlacement(4, 6, 2)), (std::vector<int32_t>{0, 1, 2, 2, 3, 0}));
}

TEST(RandomPlacement, CoversEveryExpertAndRepeatsForASeed) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    const Placement placement = RandomPlacement(20, 30, 5, seed);
    EXPECT_NO_THROW(ValidatePlacement(placement, "random"));
    EXPECT_EQ(placement, RandomPlacement(20, 30, 5, seed));
  }
  EXPECT_NE(RandomPlacement(20, 30, 5, 1), RandomPlacement(20, 30, 5, 2));
}

TEST(MakeRoutingTable, ListsEveryExpertsSlotsAscending) {
  const RoutingTable table = MakeRoutingTable(ContiguousPlacement(4, 6, 2));
  ASSERT_EQ(table.SlotsOf(ExpertId(0)).size(), 2u);
  EXPECT_EQ(table.SlotsOf(ExpertId(0))[1], SlotId(5));
  EXPECT_EQ(table.SlotsOf(ExpertId(2))[0], SlotId(2));
  EXPECT_EQ(table.SlotsOf(ExpertId(2))[1], SlotId(3));
}

TEST(ValidatePlacement, RefusesBadSizesIdsAndMissingExperts) {
  EXPECT_THROW(ContiguousPlacement(4, 3, 1), Error);
  EXPECT_THROW(ContiguousPlacement(4, 5, 2), Error);
  EXPECT_THROW(ValidatePlacement({2, 1, {ExpertId(0), ExpertId(2)}}, "x"), Error);
  EXPECT_THROW(ValidatePlacement({2, 1, {ExpertId(0), ExpertId(0)}}, "x"), Error);
}

TEST(ImbalanceRatio, IsZeroForEqualLoadsAndForNone) {
  EXPECT_EQ(ImbalanceRatio(std::vector<double>{3, 3}), 0);
  EXPECT_EQ(ImbalanceRatio(std::vector<double>{0, 0}), 0);
  EXPECT_DOUBLE_EQ(ImbalanceRatio(std::vector<double>{1, 3}), 0.5);
}

}  // namespace
}  // namespace wideload::eplb
