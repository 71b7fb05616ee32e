#include "statistics/run_series.h"

#include <gtest/gtest.h>

namespace wideload::statistics {
namespace {

constexpr int64_t kRows[] = {3, 1, 2, 2};  // layer 0: imbalance 0.5; layer 1: 0

RunSeries Filled(int64_t num_iterations, size_t max_stretches) {
  RunSeries series(2, 2, max_stretches);
  for (int64_t i = 0; i < num_iterations; ++i)
    series.Add({.iteration = 10 + i,
                .seconds = 0.5,
                .prompt_tokens = i,
                .generated_tokens = 2,
                .fetched_slots = i == 3 ? 7 : 0},
               kRows);
  return series;
}

TEST(RunSeries, HasAStretchForEachIterationOfAShortRun) {
  const RunSeries series = Filled(4, 4);
  ASSERT_EQ(series.stretches().size(), 4U);
  const Stretch& last = series.stretches().back();
  EXPECT_EQ(last.first_iteration, 13);
  EXPECT_EQ(last.num_iterations, 1);
  EXPECT_EQ(last.prompt_tokens, 3);
  EXPECT_EQ(last.fetched_slots, 7);
  EXPECT_DOUBLE_EQ(last.MeanImbalance(), 0.25);
  EXPECT_DOUBLE_EQ(last.MeanBalancedness(), (1 / 1.5 + 1) / 2);
}

TEST(RunSeries, PutsStretchesTogetherAndLosesNothing) {
  for (const size_t max_stretches : {2U, 3U, 4U, 7U})
    for (int64_t n = 1; n < 40; ++n) {
      const RunSeries series = Filled(n, max_stretches);
      ASSERT_LE(series.stretches().size(), max_stretches);
      int64_t next = 10;
      for (const Stretch& stretch : series.stretches()) {
        EXPECT_EQ(stretch.first_iteration, next);
        next += stretch.num_iterations;
      }
      EXPECT_EQ(next, 10 + n);
      const Stretch total = series.Total();
      EXPECT_EQ(total.num_iterations, n);
      EXPECT_EQ(total.prompt_tokens, n * (n - 1) / 2);
      EXPECT_EQ(total.generated_tokens, 2 * n);
      EXPECT_EQ(total.fetched_slots, n > 3 ? 7 : 0);
      EXPECT_DOUBLE_EQ(total.MeanImbalance(), 0.25);
      EXPECT_EQ(series.computed_rows()[0], 3 * n);
    }
}

TEST(RunSeries, OfAModelWithoutExpertsHasTokensAlone) {
  RunSeries series(0, 2);
  series.Add({.generated_tokens = 5}, {});
  EXPECT_EQ(series.Total().generated_tokens, 5);
  EXPECT_EQ(series.Total().MeanImbalance(), 0);
  EXPECT_EQ(series.Total().MeanBalancedness(), 1);
}

}  // namespace
}  // namespace wideload::statistics
