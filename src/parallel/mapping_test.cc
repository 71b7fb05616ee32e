#include "parallel/mapping.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace wideload::parallel {
namespace {

TEST(Layout, MatchesTensorRtLlmsExampleOfMoeTp2TimesMoeEp4) {
  const Layout layout{.tp = 8, .moe_tp = 2, .moe_ep = 4};
  ValidateLayout(layout);
  EXPECT_EQ(ExpertGroup(layout, 2), (std::vector<int32_t>{0, 1, 2, 3}));
  EXPECT_EQ(ExpertGroup(layout, 7), (std::vector<int32_t>{4, 5, 6, 7}));
  EXPECT_EQ(CoordinatesOf(layout, 5), (Coordinates{.tp = 5, .moe_tp = 1, .moe_ep = 1}));
}

TEST(Layout, RanksThatDivideExpertsAreAsFarApartAsRanksWithWholeOnesAreMany) {
  const Layout layout{.tp = 8, .moe_tp = 2, .moe_ep = 4};
  EXPECT_EQ(ExpertTensorGroup(layout, 1), (RankStride{.first = 1, .count = 2, .stride = 4}));
  EXPECT_EQ(ExpertTensorGroup(layout, 5), (RankStride{.first = 1, .count = 2, .stride = 4}));
}

TEST(Layout, PutsPipelineStagesOutermost) {
  const Layout layout{.tp = 2, .cp = 2, .pp = 2, .moe_tp = 4};
  EXPECT_EQ(CoordinatesOf(layout, 7), (Coordinates{.tp = 1, .cp = 1, .pp = 1, .moe_tp = 3}));
  EXPECT_EQ(CoordinatesOf(layout, 2), (Coordinates{.tp = 0, .cp = 1, .pp = 0, .moe_tp = 2}));
}

TEST(Layout, PutsTheRanksOfATensorParallelGroupSideBySide) {
  const Layout layout{.tp = 2, .dp = 4, .moe_ep = 8};
  ValidateLayout(layout);
  EXPECT_EQ(CoordinatesOf(layout, 5), (Coordinates{.tp = 1, .dp = 2, .moe_ep = 5}));
}

TEST(Layout, OfDataParallelRanksHasOneOfEachKind) {
  const Layout layout = DataParallel(4);
  ValidateLayout(layout);
  EXPECT_EQ(layout.world(), 4);
  EXPECT_EQ(CoordinatesOf(layout, 3), (Coordinates{.dp = 3, .moe_ep = 3}));
}

TEST(Layout, RefusesSizesThatDoNotMultiply) {
  EXPECT_THROW(ValidateLayout({.tp = 8, .moe_tp = 2, .moe_ep = 2}), Error);
  EXPECT_THROW(ValidateLayout({.tp = 2, .dp = 2, .moe_ep = 2}), Error);
  EXPECT_THROW(ValidateLayout({.tp = 0}), Error);
}

TEST(ShardOf, GivesTheFirstPiecesTheRemainder) {
  EXPECT_EQ(ShardOf(10, 3, 0), (Shard{0, 4}));
  EXPECT_EQ(ShardOf(10, 3, 2), (Shard{7, 10}));
  EXPECT_EQ(ShardOf(2, 3, 2), (Shard{2, 2}));
}

TEST(ShardInSteps, CutsAtWholeStepsWhereThereAreEnough) {
  EXPECT_EQ(ShardInSteps(40, 16, 2, 0), (Shard{0, 32}));
  EXPECT_EQ(ShardInSteps(40, 16, 2, 1), (Shard{32, 40}));
  EXPECT_EQ(ShardInSteps(40, 16, 4, 3), (Shard{30, 40}));
}

TEST(StageLayers, AreEvenOrAsTheirSizesSay) {
  EXPECT_EQ(StageLayers(8, 3, {}, 0), (Shard{0, 3}));
  EXPECT_EQ(StageLayers(8, 3, {}, 2), (Shard{6, 8}));
  const std::vector<int32_t> sizes = {3, 2, 3};
  EXPECT_EQ(StageLayers(8, 3, sizes, 1), (Shard{3, 5}));
  EXPECT_THROW(StageLayers(9, 3, sizes, 1), Error);
  EXPECT_THROW(StageLayers(8, 2, sizes, 1), Error);
  EXPECT_THROW(StageLayers(2, 3, {}, 0), Error);
}

}  // namespace
}  // namespace wideload::parallel
