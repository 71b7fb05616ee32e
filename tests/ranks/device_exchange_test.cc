// Results over any layout of ranks whose rows lie in memory of devices are those of one loop, bit
// for bit: on devices that work as late as they may, so that a wait that is missing is seen.
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "compute/cuda/kernels.h"
#include "tests/ranks/exchange_on_device.h"

namespace wideload::exchange {
namespace {

bool IsOracle(const Load& load, const LoadResult& result) {
  const std::vector<float> expected = Oracle(load);
  return result.values.size() == expected.size() &&
         std::memcmp(result.values.data(), expected.data(), expected.size() * sizeof(float)) == 0;
}

void ExpectOracleOnDevices(const Load& load, const DeviceRun& run = {}) {
  SCOPED_TRACE(load.Name());
  const LoadResult result = RunOnDevices(load, run);
  ASSERT_TRUE(result.outcome.ok()) << result.outcome.error;
  EXPECT_TRUE(IsOracle(load, result));
  for (const int64_t rounds : result.num_rounds) EXPECT_EQ(rounds, result.num_rounds[0]);
}

class DeviceLayouts : public testing::TestWithParam<std::tuple<int, int>> {
 protected:
  // Small chunks: many rounds in each buffer.
  Load BaseLoad() const {
    Load load;
    load.num_ranks = std::get<0>(GetParam());
    load.num_buffers = std::get<1>(GetParam());
    load.max_rows = 4;
    load.num_slots = 27;
    return load;
  }
};

INSTANTIATE_TEST_SUITE_P(RanksAndBuffers, DeviceLayouts,
                         testing::Combine(testing::Values(1, 2, 4, 8), testing::Values(1, 2, 3)));

TEST_P(DeviceLayouts, GiveTheBitsOfOneLoopWhenNobodyWaitsForADeviceBeforeTheEnd) {
  for (const bool is_pipelined : {false, true}) {
    Load load = BaseLoad();
    load.is_pipelined = is_pipelined;
    ExpectOracleOnDevices(load);
  }
}

TEST_P(DeviceLayouts, GiveTheBitsOfOneLoopWhenRanksWaitForTheirStreamsAtRandomTimes) {
  for (const uint64_t seed : {1, 2}) {
    Load load = BaseLoad();
    load.is_random_placement = true;
    load.is_skewed = true;
    load.seed = seed;
    ExpectOracleOnDevices(load);
  }
}

TEST_P(DeviceLayouts, GiveTheBitsOfOneLoopForAnyRouting) {
  for (const Routing routing : {Routing::kAllToOneRank, Routing::kNoToken, Routing::kMasked}) {
    for (const Share share : {Share::kEven, Share::kOnlyLastRank}) {
      Load load = BaseLoad();
      load.max_rows = 16;
      load.routing = routing;
      load.share = share;
      load.is_skewed = share == Share::kEven;
      ExpectOracleOnDevices(load);
    }
  }
}

TEST_P(DeviceLayouts, GiveTheBitsOfOneLoopOverSeveralDevicesAndSlowNetworks) {
  const int num_ranks = std::get<0>(GetParam());
  Load load = BaseLoad();
  load.max_rows = 16;
  load.is_skewed = true;
  load.first_epoch = 0U - 3;
  ExpectOracleOnDevices(load, {.num_devices = num_ranks, .delay = std::chrono::microseconds(300)});
}

TEST(DeviceExchange, GivesTheBitsOfOneLoopForRandomLoads) {
  std::mt19937_64 random(20261128);
  for (int i = 0; i < 40; ++i) {
    Load load = RandomLoad(random, 8);
    load.is_free = false;
    ExpectOracleOnDevices(load, {.num_devices = 1 + i % 2 * std::min(1, load.num_ranks - 1)});
    if (HasFatalFailure()) return;
  }
}

// Rows of any length, more than a block of threads copies.
TEST(DeviceExchange, GivesTheBitsOfOneLoopWithTheKernelOfTheEngine) {
  const auto copy = [](device::Stream& stream, const RowCopies& copies) {
    compute::cuda::EmulatedMmaKernels()->copy_rows(
        stream, {copies.from, copies.to, copies.row_bytes, copies.num_rows});
  };
  for (const int64_t hidden : {1, 24, 2051}) {
    Load load;
    load.num_ranks = 3;
    load.hidden = hidden;
    load.num_tokens = 30;
    load.num_layers = 2;
    ExpectOracleOnDevices(load, {.copy = copy});
  }
}

// Each rank's stream waits for nobody: what it does, it does with rows that are not there yet, or
// no longer.
TEST(DeviceExchange, AWaitThatIsLeftOutChangesResults) {
  Load load;
  load.num_ranks = 4;
  load.max_rows = 4;
  load.share = Share::kEven;
  ASSERT_TRUE(IsOracle(load, RunOnDevices(load)));
  for (const Direction direction : {Direction::kOut, Direction::kBack})
    EXPECT_FALSE(IsOracle(load, RunOnDevices(load, {.left_out = direction})));
}

}  // namespace
}  // namespace wideload::exchange
