// Results over any layout of ranks whose rows lie in memory of devices are those of one loop, bit
// for bit.
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <tuple>

#include "tests/ranks/exchange_on_device.h"
#include "tests/ranks/load_kernels.h"

namespace wideload::exchange {
namespace {

void ExpectOracleOnDevices(const Load& load, const DeviceRun& run = {}) {
  SCOPED_TRACE(load.Name());
  const LoadResult result = RunOnDevices(load, run);
  ASSERT_TRUE(result.outcome.ok()) << result.outcome.error;
  EXPECT_TRUE(IsOracle(load, result));
  for (const int64_t rounds : result.num_rounds) EXPECT_EQ(rounds, result.num_rounds[0]);
}

// Skips where there is no device.
template <class Test>
class OnDevices : public Test {
  void SetUp() override {
    std::string why_none;
    if (DevicesUnderTest(1, why_none).empty()) GTEST_SKIP() << "not run on a GPU: " << why_none;
  }
};

class DeviceLayouts : public OnDevices<testing::TestWithParam<std::tuple<int, int>>> {
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

using DeviceExchange = OnDevices<testing::Test>;

TEST_F(DeviceExchange, GivesTheBitsOfOneLoopForRandomLoads) {
  std::mt19937_64 random(20261128);
  for (int i = 0; i < 40; ++i) {
    Load load = RandomLoad(random, 8);
    load.is_free = false;
    ExpectOracleOnDevices(load, {.num_devices = 1 + i % 2 * std::min(1, load.num_ranks - 1)});
    if (HasFatalFailure()) return;
  }
}

// Rows of any length, more than a block of threads copies.
TEST_F(DeviceExchange, GivesTheBitsOfOneLoopWithTheCopiesOfTheEngine) {
  for (const int64_t hidden : {1, 24, 2051}) {
    Load load;
    load.num_ranks = 3;
    load.hidden = hidden;
    load.num_tokens = 30;
    load.num_layers = 2;
    ExpectOracleOnDevices(load, {.copies_as_the_engine = true});
  }
}

}  // namespace
}  // namespace wideload::exchange
