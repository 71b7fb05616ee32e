// The exchange between processes of one host: the bits of one loop, and the end of a process ends
// the others with its name.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <random>

#include "exchange/shm_fabric.h"
#include "support/rank_processes.h"
#include "tests/ranks/exchange_load.h"

namespace wideload::exchange {
namespace {

std::vector<float> ZeroValues(const Load& load) {
  return std::vector<float>(static_cast<size_t>(load.num_layers * load.num_tokens * load.hidden));
}

int NumSegmentsOf(const std::string& job) {
  int count = 0;
  for (const auto& file : std::filesystem::directory_iterator("/dev/shm"))
    count += file.path().filename().string().rfind("wideload." + job + ".", 0) == 0 ? 1 : 0;
  return count;
}

void ExpectOracleOverProcesses(const Load& load) {
  SCOPED_TRACE(load.Name());
  const std::string job = FreshJobName();
  const auto outcome = RunRankProcesses(load.num_ranks, {}, job, [&](comm::Communicator& group) {
    ShmFabric fabric(group, SegmentBytes(ShapeOf(load)), job);
    Exchange exchange(ShapeOf(load), fabric, group);
    std::vector<float> values = ZeroValues(load);
    RunRank(load, exchange, group, values);
    group.AllReduceSum(values);  // every token is computed by one rank and zero on the others
    if (group.rank() != 0) return;
    const std::vector<float> expected = Oracle(load);
    EXPECT_EQ(std::memcmp(values.data(), expected.data(), expected.size() * sizeof(float)), 0);
  });
  EXPECT_TRUE(outcome.ranks.ok()) << outcome.ranks.error;
  EXPECT_EQ(NumSegmentsOf(job), 0);
}

class ExchangeProcesses : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Ranks, ExchangeProcesses, testing::Values(1, 2, 4, 8));

TEST_P(ExchangeProcesses, GiveTheBitsOfOneLoop) {
  for (const Load& load : LoadsOfAnyBuffersAndChunkSize(GetParam()))
    ExpectOracleOverProcesses(load);
}

TEST(ExchangeProcesses, GiveTheBitsOfOneLoopForLargeRoundsAndMaskedTokens) {
  ExpectOracleOverProcesses(LargeMaskedLoad(3, 1));
}

// At 20 calls chosen by a fixed seed one rank is killed; the deadline of a minute is longer than
// the limit of this test.
TEST(ExchangeProcesses, AKilledRankIsNamedByAllOthersAtOnce) {
  constexpr int kNumKills = 20;
  constexpr uint32_t kNumCalls = 60;  // at least so many does every rank of this load make
  std::mt19937_64 random(20261122);
  for (int i = 0; i < kNumKills; ++i) {
    Load load;
    load.num_ranks = 4;
    load.max_rows = 4;
    const int victim = static_cast<int>(random() % 4);
    const auto fatal_call = static_cast<uint32_t>(random() % kNumCalls);
    SCOPED_TRACE(fmt::format("rank {} at call {}", victim, fatal_call));
    const std::string job = FreshJobName();
    const SharedCounter num_naming_it;
    const auto outcome = RunRankProcesses(load.num_ranks, {}, job, [&](comm::Communicator& group) {
      uint32_t num_calls = 0;
      const Probe probe = [&](int rank, const char*, int64_t) {
        if (rank == victim && num_calls++ == fatal_call) ::kill(::getpid(), SIGKILL);
      };
      try {
        ShmFabric fabric(group, SegmentBytes(ShapeOf(load)), job);
        Exchange exchange(ShapeOf(load), fabric, group);
        std::vector<float> values = ZeroValues(load);
        RunRank(load, exchange, group, values, probe);
        group.Barrier();
        ADD_FAILURE() << "rank " << group.rank() << " came to the end";
      } catch (const comm::PeerLost& lost) {
        const std::string text = lost.what();
        EXPECT_NE(text.find(fmt::format("of rank {}: it is dead", victim)), std::string::npos)
            << text;
        EXPECT_NE(text.find("iteration 1, layer"), std::string::npos) << text;
        num_naming_it->fetch_add(1);
      }
    });
    EXPECT_EQ(num_naming_it->load(), 3U);
    EXPECT_EQ(outcome.killed_ranks, std::vector<int>{victim});
    EXPECT_EQ(NumSegmentsOf(job), 0);
  }
}

}  // namespace
}  // namespace wideload::exchange
