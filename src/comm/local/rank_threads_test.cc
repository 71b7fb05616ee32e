#include "comm/local/rank_threads.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <thread>

namespace wideload::comm {
namespace {

TEST(RunRanks, ReportsTheErrorOfTheRankThatFailedFirst) {
  LocalGroup group(3, {});
  const RankOutcome outcome = RunRanks(group, [](Communicator& communicator) {
    if (communicator.rank() == 1) Throw(ErrorKind::kIo, "cannot read shard 3");
    communicator.Barrier();
  });
  EXPECT_EQ(outcome.error, "cannot read shard 3");
  EXPECT_TRUE(outcome.stuck_ranks.empty());
}

TEST(RunRanks, NamesARankThatNeitherEndsNorNotices) {
  // Outlives the stuck thread, as the contract of RunRanks asks.
  struct Shared {
    LocalGroup group{2, {.deadline = std::chrono::milliseconds(50)}};
    std::atomic<bool> release{false};
    std::atomic<bool> is_over{false};
  };
  auto* shared = new Shared;
  const RankOutcome outcome = RunRanks(shared->group, [shared](Communicator& communicator) {
    if (communicator.rank() == 0) return communicator.Barrier();
    while (!shared->release.load()) std::this_thread::yield();
    shared->is_over.store(true);
  });
  EXPECT_NE(outcome.error.find("the barrier of rank 1"), std::string::npos) << outcome.error;
  EXPECT_EQ(outcome.stuck_ranks, std::vector<int>{1});
  shared->release.store(true);
  while (!shared->is_over.load()) std::this_thread::yield();
  static std::unique_ptr<Shared> keep(shared);  // the thread may still be on its way out
}

}  // namespace
}  // namespace wideload::comm
