#include "runtime/context_rows.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace wideload::runtime {
namespace {

TEST(ContextRows, GiveEveryRowOnePlaceAndNoRankMoreThanItsShare) {
  for (const int32_t ranks : {1, 2, 4, 8})
    for (int64_t count = 0; count < 50; ++count) {
      const ContextRows rows(count, ranks);
      std::vector<int64_t> places;
      for (int64_t row = 0; row < count; ++row) places.push_back(rows.PlaceOf(row));
      std::ranges::sort(places);
      for (int64_t place = 0; place < count; ++place)
        ASSERT_EQ(places[static_cast<size_t>(place)], place) << count << " rows, " << ranks;
      int64_t end = 0;
      for (int32_t r = 0; r < ranks; ++r) {
        ASSERT_EQ(rows.PlacesOf(r).begin, end);
        end = rows.PlacesOf(r).end;
        ASSERT_LE(rows.PlacesOf(r).size(), (count + ranks - 1) / ranks);
      }
      ASSERT_EQ(end, count);
    }
}

// A row sees itself and all before it.
TEST(ContextRows, HaveAsManyKeysOfAPromptOnEachRank) {
  const ContextRows rows(64, 4);
  std::vector<int64_t> keys(4);
  for (int64_t row = 0; row < 64; ++row)
    keys[static_cast<size_t>(rows.PlaceOf(row) / 16)] += row + 1;
  EXPECT_EQ(keys, std::vector<int64_t>(4, 64 * 65 / 2 / 4));
}

TEST(ContextRows, OfOneRankStayAsTheyAre) {
  const ContextRows rows(5, 1);
  ASSERT_EQ(rows.pieces().size(), 1U);
  for (int64_t row = 0; row < 5; ++row) EXPECT_EQ(rows.PlaceOf(row), row);
}

}  // namespace
}  // namespace wideload::runtime
