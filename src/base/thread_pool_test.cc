#include "base/thread_pool.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <fstream>
#include <new>
#include <numeric>

#include "base/error.h"
#include "base/testing.h"

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

TEST(ThreadPool, RethrowsWhatTheFirstTaskHasThrown) {
  const TimeLimit limit;
  for (const int num_threads : {1, 4}) {
    ThreadPool pool("test", num_threads);
    for (int round = 0; round < 100; ++round) {
      std::string found;
      try {
        pool.Run(64, [&](int64_t i, int) {
          if (i >= 20) Throw(ErrorKind::kRunFailed, "task {}", i);
        });
      } catch (const Error& e) {
        found = e.what();
      }
      EXPECT_EQ(found, "task 20");
    }
    EXPECT_THROW(pool.Run(2, [](int64_t, int) { throw std::bad_alloc(); }), std::bad_alloc);
    std::atomic<int> num_done = 0;
    pool.Run(64, [&](int64_t, int) { ++num_done; });
    EXPECT_EQ(num_done, 64);
  }
}

// Lets the process have so much more memory of addresses while it lives.
class AddressLimit {
 public:
  explicit AddressLimit(size_t more_bytes) {
    ::getrlimit(RLIMIT_AS, &before_);
    std::ifstream statm("/proc/self/statm");
    size_t pages = 0;
    statm >> pages;
    const rlimit limit{
        .rlim_cur = pages * static_cast<size_t>(::sysconf(_SC_PAGESIZE)) + more_bytes,
        .rlim_max = before_.rlim_max};
    ::setrlimit(RLIMIT_AS, &limit);
  }
  ~AddressLimit() { ::setrlimit(RLIMIT_AS, &before_); }

 private:
  rlimit before_{};
};

TEST(ThreadPool, EndsTheThreadsItHasWhenOneCannotBeStarted) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers need more addresses than the limit leaves";
#endif
  const TimeLimit time;
  std::string found;
  {
    const AddressLimit limit(size_t{64} << 20);  // the stacks of a few threads
    try {
      const ThreadPool pool("wide", 512);
    } catch (const Error& e) {
      found = e.what();
    }
  }
  EXPECT_NE(found.find("cannot start the thread wide/"), std::string::npos) << found;
  EXPECT_NE(found.find("ulimit"), std::string::npos) << found;
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
