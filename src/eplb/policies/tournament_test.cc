#include "eplb/policies/tournament.h"

#include <gtest/gtest.h>

#include <numeric>
#include <random>

namespace wideload::eplb {
namespace {

TEST(Tournament, NamesTheSmallestKeyAndBreaksTiesByIndex) {
  Tournament<TieWinner::kLowestIndex> lowest({5, 3, 3, 4, 3});
  EXPECT_EQ(lowest.Winner(), 1);
  lowest.Change(1, 9);
  EXPECT_EQ(lowest.Winner(), 2);
  Tournament<TieWinner::kHighestIndex> highest({5, 3, 3, 4, 3});
  EXPECT_EQ(highest.Winner(), 4);
  highest.Change(4, Tournament<TieWinner::kHighestIndex>::kLast);
  EXPECT_EQ(highest.Winner(), 2);
  EXPECT_EQ(Tournament<TieWinner::kLowestIndex>({7}).Winner(), 0);
}

TEST(Tournament, FollowsRandomChanges) {
  std::mt19937_64 random(5);
  std::vector<uint64_t> keys(37);
  for (uint64_t& key : keys) key = random() % 10;
  Tournament<TieWinner::kLowestIndex> tournament(keys);
  for (int i = 0; i < 1000; ++i) {
    const auto index = static_cast<size_t>(random() % keys.size());
    keys[index] = random() % 10;
    tournament.Change(static_cast<int32_t>(index), keys[index]);
    EXPECT_EQ(tournament.Winner(), std::min_element(keys.begin(), keys.end()) - keys.begin());
  }
}

TEST(SortedByKey, EqualsAStableSort) {
  std::mt19937_64 random(6);
  for (int run = 0; run < 300; ++run) {
    std::vector<uint64_t> keys(static_cast<size_t>(random() % 50));
    const uint64_t mask = run % 3 == 0 ? 7 : run % 3 == 1 ? 0xff : ~uint64_t{0};
    for (uint64_t& key : keys) key = random() & mask;
    std::vector<int32_t> expected(keys.size());
    std::iota(expected.begin(), expected.end(), 0);
    std::stable_sort(expected.begin(), expected.end(), [&](int32_t a, int32_t b) {
      return keys[static_cast<size_t>(a)] < keys[static_cast<size_t>(b)];
    });
    EXPECT_EQ(SortedByKey(keys), expected);
  }
}

TEST(LoadKeys, OrderAsTheLoadsDo) {
  EXPECT_LT(SmallestFirst(1.5), SmallestFirst(2));
  EXPECT_GT(LargestFirst(1.5), LargestFirst(2));
  EXPECT_EQ(SmallestFirst(-0.0), SmallestFirst(0.0));
}

}  // namespace
}  // namespace wideload::eplb
