#include "statistics/expert_statistics.h"

#include <gtest/gtest.h>

#include <limits>

#include "base/error.h"

namespace wideload::statistics {
namespace {

ExpertStatistics TwoRanks() {
  return {.num_experts = 3,
          .experts_per_token = 1,
          .ep_size = 2,
          .iter_start = 5,
          .num_iterations = 2,
          .layers = {4},
          .num_ranks = 2,
          .counts = {1, 2, 3, 10, 20, 30, 4, 5, 6, 40, 50, 60}};
}

TEST(SumRanks, AddsTheRanksOfEachIteration) {
  const ExpertStatistics sums = SumRanks(TwoRanks());
  EXPECT_EQ(sums.num_ranks, 1);
  EXPECT_EQ(sums.ep_size, 2);
  EXPECT_EQ(sums.counts, (std::vector<int64_t>{11, 22, 33, 44, 55, 66}));
  EXPECT_EQ(LayerLoads(TwoRanks(), 0), (std::vector<int64_t>{55, 77, 99}));
}

TEST(SumRanks, RefusesOverflow) {
  ExpertStatistics statistics = TwoRanks();
  statistics.counts[1] = std::numeric_limits<int64_t>::max();
  EXPECT_THROW(SumRanks(statistics), Error);
  EXPECT_THROW(LayerLoads(statistics, 0), Error);
}

TEST(TakeLayers, KeepsIterationsAndRanksOfTheLayersNamed) {
  ExpertStatistics statistics{.num_experts = 1,
                              .ep_size = 2,
                              .num_iterations = 2,
                              .layers = {3, 5},
                              .num_ranks = 2,
                              .counts = {1, 2, 3, 4, 5, 6, 7, 8}};
  EXPECT_EQ(TakeLayers(statistics, {5}, "f").counts, (std::vector<int64_t>{3, 4, 7, 8}));
  EXPECT_THROW(TakeLayers(statistics, {4}, "f"), Error);
}

TEST(SlotsToExperts, AddsTheSlotsOfAnExpert) {
  EplbConfig config{.num_slots = 3};
  config.layers[4] = {1, 0, 1};
  const ExpertStatistics experts = SlotsToExperts(TwoRanks(), config, "f.yaml");
  EXPECT_EQ(experts.num_experts, 2);
  EXPECT_EQ(experts.counts, (std::vector<int64_t>{2, 4, 20, 40, 5, 10, 50, 100}));
  config.num_slots = 4;
  EXPECT_THROW(SlotsToExperts(TwoRanks(), config, "f.yaml"), Error);
  config = {.num_slots = 3, .layers = {{5, {0, 1, 2}}}};
  EXPECT_THROW(SlotsToExperts(TwoRanks(), config, "f.yaml"), Error);
}

}  // namespace
}  // namespace wideload::statistics
