// The exchange between processes that mpirun started, on one host or taking each other for hosts:
// the bits of one loop over whatever fabric is chosen for them.
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "exchange/make_fabric.h"
#include "support/mpi_ranks.h"
#include "tests/ranks/exchange_load.h"

namespace wideload::exchange {
namespace {

void ExpectOracleOverMpi(const Load& load, std::chrono::microseconds delay = {}) {
  SCOPED_TRACE(load.Name());
  const auto outcome = RunMpiRanks(load.num_ranks, {}, [&](comm::Communicator& group) {
    const FabricOptions options{.segment_bytes = SegmentBytes(ShapeOf(load)),
                                .place = {.job = CommonJobName(group)},
                                .delay = delay};
    const MadeFabric made = MakeFabric(group, options);
    Exchange exchange(ShapeOf(load), *made.fabric, group);
    std::vector<float> values(static_cast<size_t>(load.num_layers * load.num_tokens * load.hidden));
    RunRank(load, exchange, group, values);
    group.AllReduceSum(values);  // every token is computed by one rank and zero on the others
    const std::vector<float> expected = Oracle(load);
    EXPECT_EQ(std::memcmp(values.data(), expected.data(), expected.size() * sizeof(float)), 0);
  });
  EXPECT_TRUE(outcome.ok()) << outcome.error;
}

TEST(ExchangeOverMpi, GivesTheBitsOfOneLoopForAnyBuffersAndChunkSize) {
  for (const Load& load : LoadsOfAnyBuffersAndChunkSize(NumMpiRanks())) ExpectOracleOverMpi(load);
}

TEST(ExchangeOverMpi, GivesTheBitsOfOneLoopForLargeRoundsAndMaskedTokens) {
  ExpectOracleOverMpi(LargeMaskedLoad(NumMpiRanks(), 2));
}

TEST(ExchangeOverMpi, GivesTheBitsOfOneLoopOverASlowNetwork) {
  Load load;
  load.num_ranks = NumMpiRanks();
  load.max_rows = 8;
  ExpectOracleOverMpi(load, std::chrono::milliseconds(3));
}

TEST(ExchangeOverMpi, GivesTheBitsOfOneLoopWhenTagsWrap) {
  Load load;
  load.num_ranks = NumMpiRanks();
  load.max_rows = 4;
  load.first_epoch = 0U - 3U;
  ExpectOracleOverMpi(load);
}

TEST(ExchangeOverMpi, GivesTheBitsOfOneLoopForRandomLoads) {
  std::mt19937_64 random(20261122);
  for (int i = 0; i < 8; ++i) ExpectOracleOverMpi(RandomLoad(random, NumMpiRanks()));
}

// What one rank finds is told to all of them, whatever lies between.
TEST(ExchangeOverMpi, EndsOnAllRanksWhenOneFails) {
  Load load;
  load.num_ranks = NumMpiRanks();
  if (load.num_ranks == 1) GTEST_SKIP() << "nobody waits";
  const auto outcome = RunMpiRanks(load.num_ranks, {}, [&](comm::Communicator& group) {
    const FabricOptions options{.segment_bytes = SegmentBytes(ShapeOf(load)),
                                .place = {.job = CommonJobName(group)}};
    const MadeFabric made = MakeFabric(group, options);
    Exchange exchange(ShapeOf(load), *made.fabric, group);
    std::vector<float> values(static_cast<size_t>(load.num_layers * load.num_tokens * load.hidden));
    RunRank(load, exchange, group, values, [](int rank, const char* call, int64_t round) {
      if (rank == 1 && round == 1 && std::strcmp(call, "Receive") == 0)
        Throw(ErrorKind::kResource, "no memory for the rows of slot 7");
    });
    ADD_FAILURE() << "rank " << group.rank() << " came to the end";
  });
  EXPECT_EQ(outcome.error, "no memory for the rows of slot 7");
}

}  // namespace
}  // namespace wideload::exchange

int main(int argc, char** argv) { return wideload::RunMpiTests(argc, argv); }
