#include "eplb/split/shared_expert.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <vector>

#include "eplb/placement/random.h"
#include "eplb/testing.h"

namespace wideload::eplb {
namespace {

TEST(SplitSharedExpert, MovesNoRowThatDoesNotMakeItsRankTheBusiest) {
  // Rank 2 has little to do beside rank 0: its rows stay, though rank 1 is idle.
  EXPECT_EQ(SplitSharedExpert(std::vector<int64_t>{100, 0, 50}, std::vector<int32_t>{0, 0, 10})[8],
            10);
  Random random(11);
  for (int round = 0; round < 300; ++round) {
    const size_t ranks = 1 + static_cast<size_t>(random.Below(6));
    const double cost = std::array{1.0, 0.5, 3.0}[static_cast<size_t>(random.Below(3))];
    std::vector<int64_t> routed;
    std::vector<int32_t> tokens;
    for (size_t r = 0; r < ranks; ++r) {
      routed.push_back(random.Below(60));
      tokens.push_back(random.Below(30));
    }
    // One row after the other to the least busy rank: the least that whole rows allow.
    std::vector<double> least(routed.begin(), routed.end());
    for (int32_t i = std::accumulate(tokens.begin(), tokens.end(), 0); i > 0; --i)
      *std::min_element(least.begin(), least.end()) += cost;
    const double busiest = *std::max_element(least.begin(), least.end());
    const std::vector<int32_t> rows = SplitSharedExpert(routed, tokens, cost);
    for (size_t r = 0; r < ranks; ++r) {
      double busy = static_cast<double>(routed[r]);
      for (size_t from = 0; from < ranks; ++from) busy += cost * rows[from * ranks + r];
      EXPECT_LE(busy, busiest + kSumRounding);
      const auto room =
          std::floor((busiest - static_cast<double>(routed[r])) / cost + kSumRounding);
      EXPECT_EQ(rows[r * ranks + r], std::min(tokens[r], static_cast<int32_t>(room)));
    }
  }
}

TEST(SplitSharedExpert, FillsTheLeastBusyRanksAndStaysAtHomeOtherwise) {
  const std::vector<int64_t> routed = {100, 60, 80};
  const std::vector<int32_t> tokens = {20, 20, 20};
  const std::vector<int32_t> rows = SplitSharedExpert(routed, tokens);
  std::vector<int64_t> busy = routed;
  for (size_t from = 0; from < 3; ++from) {
    int32_t sum = 0;
    for (size_t to = 0; to < 3; ++to) {
      sum += rows[from * 3 + to];
      busy[to] += rows[from * 3 + to];
    }
    EXPECT_EQ(sum, 20);
  }
  EXPECT_EQ(*std::max_element(busy.begin(), busy.end()), 100);
  EXPECT_EQ(rows[4], 20);
  EXPECT_EQ(rows[8], 20);
}

}  // namespace
}  // namespace wideload::eplb
