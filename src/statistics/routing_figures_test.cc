#include "statistics/routing_figures.h"

#include <gtest/gtest.h>

namespace wideload::statistics {
namespace {

eplb::Placement PlacementOf(const std::vector<int32_t>& slots, int32_t num_ranks) {
  eplb::Placement placement{4, num_ranks, {}};
  for (const int32_t expert : slots) placement.slot_expert.emplace_back(expert);
  return placement;
}

// Four tokens of two experts each; ranks 0 to 3 have one token each.
const eplb::RoutingTrace kRouting{
    .num_layers = 1,
    .top_k = 2,
    .num_experts = 4,
    .tasks = {{.document_tokens = {4}, .expert_ids = {0, 1, 0, 1, 2, 3, 2, 3}, .name = "a"}}};

TEST(CrossingFigures, CountsCopiesThatLeaveRankAndNode) {
  // an expert a rank: each token goes to two ranks, and only two of the eight copies stay
  const CrossingFigures figures = CrossingOf(kRouting, 0, PlacementOf({0, 1, 2, 3}, 4), 2, 5);
  EXPECT_EQ(figures.ranks_per_token, 2);
  EXPECT_EQ(figures.rows_off_rank, 0.5);
  EXPECT_EQ(figures.rows_off_node, 0);
  EXPECT_EQ(figures.pairs_on_one_rank, 0);
  const CrossingFigures swapped = CrossingOf(kRouting, 0, PlacementOf({2, 3, 0, 1}, 4), 2, 5);
  EXPECT_EQ(swapped.rows_off_node, 1);
}

TEST(CrossingFigures, TakesTheOwnRanksReplica) {
  const CrossingFigures figures =
      CrossingOf(kRouting, 0, PlacementOf({0, 1, 0, 1, 2, 3, 2, 3}, 4), 1, 5);
  EXPECT_EQ(figures.ranks_per_token, 1);
  EXPECT_EQ(figures.rows_off_rank, 0);
  EXPECT_EQ(figures.pairs_on_one_rank, 1);
}

TEST(CrossingFigures, NamesExpertsThatAreChosenTogether) {
  const CrossingFigures figures = CrossingOf(kRouting, 0, PlacementOf({0, 1, 2, 3}, 4), 1, 1);
  ASSERT_EQ(figures.pairs.size(), 1U);
  EXPECT_EQ(figures.pairs[0].first, 0);
  EXPECT_EQ(figures.pairs[0].second, 1);
  EXPECT_EQ(figures.pairs[0].tokens, 2);
  EXPECT_EQ(figures.pairs[0].lift, 2);  // two of four tokens where one was expected
}

}  // namespace
}  // namespace wideload::statistics
