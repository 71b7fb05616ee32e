#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <numeric>

namespace wideload {
namespace {

TEST(ThreadPool, RunsEveryTaskOnceWithMoreThreadsThanCores) {
  ThreadPool pool("test", 8);
  for (int round = 0; round < 200; ++round) {
    std::vector<int> hits(37, 0);
    pool.Run(37, [&](int64_t i, int thread) {
      ASSERT_LT(thread, 8);
      ++hits[static_cast<size_t>(i)];
    });
    EXPECT_EQ(std::accumulate(hits.begin(), hits.end(), 0), 37) << round;
    EXPECT_EQ(*std::min_element(hits.begin(), hits.end()), 1) << round;
  }
}

TEST(ThreadPool, CutsRangesIntoGrains) {
  ThreadPool pool("test", 2);
  std::atomic<int64_t> covered = 0;
  pool.RunRange(10, 4, [&](int64_t begin, int64_t end, int) {
    EXPECT_LE(end - begin, 4);
    covered += end - begin;
  });
  EXPECT_EQ(covered, 10);
  pool.RunRange(0, 4, [&](int64_t, int64_t, int) { ADD_FAILURE(); });
}

TEST(EventWord, WakesASleeper) {
  EventWord word;
  std::jthread publisher([&] { word.Publish(7); });
  EXPECT_TRUE(WaitFor(
      word, WaitLadder::Oversubscribed(), [](uint32_t v) { return v == 7; }, [] { return true; }));
}

TEST(EventWord, StopsWaitingWhenAsked) {
  EventWord word;
  int slices = 0;
  const WaitLadder ladder{.spins = 0, .yields = 0, .slice = std::chrono::milliseconds(1)};
  EXPECT_FALSE(WaitFor(
      word, ladder, [](uint32_t v) { return v == 1; }, [&] { return ++slices < 3; }));
  EXPECT_EQ(slices, 3);
}

}  // namespace
}  // namespace wideload
