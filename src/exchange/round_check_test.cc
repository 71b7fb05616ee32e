#include "exchange/round_check.h"

#include <gtest/gtest.h>

#include <array>
#include <limits>
#include <vector>

namespace wideload::exchange {
namespace {

constexpr int32_t kLargest = std::numeric_limits<int32_t>::max();

// Chunks of 4 tokens of 2 entries each; 3 slots a rank.
const ExchangeShape kTwoRanks{.num_ranks = 2,
                              .max_rows = 4,
                              .top_k = 2,
                              .row_bytes = 16,
                              .return_row_bytes = 16,
                              .num_experts = 5,
                              .num_slots = 6};

TEST(RoundCheck, TakesCountsOfOneChunk) {
  EXPECT_EQ(FaultOfCounts(kTwoRanks, std::array{0, 0, 0, 0, 0}), "");
  EXPECT_EQ(FaultOfCounts(kTwoRanks, std::array{8, 0, 0, 0, 0}), "");
  EXPECT_NE(FaultOfCounts(kTwoRanks, std::array{8, 0, 0, 0, 1}), "");
  EXPECT_NE(FaultOfCounts(kTwoRanks, std::array{9, 0, -1, 0, 0}), "");
  EXPECT_NE(FaultOfCounts(kTwoRanks, std::array{kLargest, kLargest, 2, 0, 0}),
            "");  // 2^32: 0 in 32 bits
}

TEST(RoundCheck, TakesHeadersWithinTheChunk) {
  EXPECT_EQ(FaultOfHeader(kTwoRanks, {.num_rows = 0}), "");
  EXPECT_EQ(FaultOfHeader(kTwoRanks, {.num_rows = 4, .num_pairs = 6, .comb_offset = 2}), "");
  EXPECT_NE(FaultOfHeader(kTwoRanks, {.num_rows = 5}), "");
  EXPECT_NE(FaultOfHeader(kTwoRanks, {.num_rows = -1}), "");
  EXPECT_NE(FaultOfHeader(kTwoRanks, {.num_pairs = 6, .comb_offset = 3}), "");
  EXPECT_NE(FaultOfHeader(kTwoRanks, {.num_pairs = -1, .comb_offset = 3}), "");
  EXPECT_NE(FaultOfHeader(kTwoRanks, {.num_pairs = 1, .comb_offset = -1}), "");
  EXPECT_NE(FaultOfHeader(kTwoRanks, {.num_pairs = 8, .comb_offset = kLargest}), "");
}

TEST(RoundCheck, CountsTheRowsOfSlots) {
  std::vector<int64_t> rows(3, 1);
  const std::array metas = {2, 0, -1, 3, 2, 0};
  EXPECT_EQ(CountRows(kTwoRanks, {.num_rows = 2, .num_pairs = 3}, metas.data(), rows), "");
  EXPECT_EQ(rows, (std::vector<int64_t>{3, 1, 2}));
}

TEST(RoundCheck, RefusesMetasThatPointElsewhere) {
  std::vector<int64_t> rows(3);
  const auto fault = [&](std::array<int32_t, 3> metas, int32_t num_pairs) {
    return CountRows(kTwoRanks, {.num_rows = 1, .num_pairs = num_pairs}, metas.data(), rows);
  };
  EXPECT_EQ(fault({3, 2, -1}, 1), "");
  EXPECT_NE(fault({4, 2, -1}, 1), "");
  EXPECT_NE(fault({-1, 2, -1}, 1), "");
  EXPECT_NE(fault({3, 3, -1}, 1), "");
  EXPECT_NE(fault({3, 2, 2}, 1), "");
}

}  // namespace
}  // namespace wideload::exchange
