#include "checkpoint/rope_table.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <span>
#include <thread>
#include <vector>

namespace wideload::checkpoint {
namespace {

constexpr double kFloatUlps = 3e-7;  // relative: two roundings to fp32

void ExpectNear(const std::vector<float>& found, std::span<const double> expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i)
    EXPECT_NEAR(found[i], expected[i], kFloatUlps * expected[i]) << i;
}

TEST(RopeTable, PlainFrequenciesArePowersOfTheta) {
  const std::array<double, 4> expected = {1.0, 0.1, 0.01, 0.001};
  ExpectNear(RopeFrequencies({.theta = 10000.0}, 8), expected);
  EXPECT_EQ(RopeAttentionFactor({.theta = 10000.0}), 1.0F);
}

TEST(RopeTable, LinearScalingDividesEveryFrequency) {
  const std::array<double, 4> expected = {0.25, 0.025, 0.0025, 0.00025};
  ExpectNear(RopeFrequencies({.theta = 10000.0, .type = RopeType::kLinear, .factor = 4.0}, 8),
             expected);
}

// Correction dims -0.996 and 2.015, rounded outwards and clamped to [0, 3]:
// frequency 1 is (2/3 + 1/3 / 10) x 10000^(-1/8).
TEST(RopeTable, YarnStretchesSlowDimensionsOnly) {
  const RopeConfig config{
      .theta = 10000.0, .type = RopeType::kYarn, .factor = 10.0, .original_max_positions = 64};
  const std::array<double, 8> expected = {
      1.0,   0.22135943621178658,    0.04,   0.003162277660168379,
      0.001, 0.00031622776601683794, 0.0001, 3.1622776601683795e-05};
  ExpectNear(RopeFrequencies(config, 16), expected);
}

TEST(RopeTable, YarnWithoutTruncationKeepsTheFractionalRange) {
  const RopeConfig config{.theta = 150000.0,
                          .type = RopeType::kYarn,
                          .factor = 8.0,
                          .original_max_positions = 64,
                          .truncate = false};
  const std::array<double, 8> expected = {1.0,
                                          0.0988138315592572,
                                          0.006351659351932684,
                                          0.0014317783490825282,
                                          0.0003227486121839514,
                                          7.275334672675824e-05,
                                          1.639991392721192e-05,
                                          3.696835800971321e-06};
  ExpectNear(RopeFrequencies(config, 16), expected);
}

TEST(RopeTable, AttentionFactorIsGivenOrFollowsFromTheStretch) {
  RopeConfig config{.type = RopeType::kYarn, .factor = 4.0, .original_max_positions = 32768};
  EXPECT_FLOAT_EQ(RopeAttentionFactor(config), 1.138629436F);  // 0.1 ln 4 + 1
  config.mscale = 1.0;
  EXPECT_FLOAT_EQ(RopeAttentionFactor(config), 1.138629436F);  // one of the two is not enough
  config.mscale_all_dim = 1.0;
  EXPECT_FLOAT_EQ(RopeAttentionFactor(config), 1.0F);
  config.mscale = 2.0;
  EXPECT_FLOAT_EQ(RopeAttentionFactor(config), 1.277258872F / 1.138629436F);
  config.attention_factor = 0.75;
  EXPECT_FLOAT_EQ(RopeAttentionFactor(config), 0.75F);
}

TEST(RopeTable, HoldsCosAndSinOfPositionTimesFrequency) {
  const RopeConfig config{.theta = 10000.0,
                          .type = RopeType::kYarn,
                          .factor = 2.0,
                          .original_max_positions = 64,
                          .attention_factor = 0.5};
  constexpr int64_t kContext = int64_t{1} << 27;  // of which nothing is kept but what is used
  const RopeTable table(config, 8, kContext);
  const std::vector<float> frequencies = RopeFrequencies(config, 8);
  ASSERT_EQ(table.num_pairs(), 4);
  for (const int64_t p : {int64_t{0}, int64_t{1}, int64_t{255}, int64_t{256}, kContext - 1}) {
    std::array<float, 4> cos{};
    std::array<float, 4> sin{};
    table.CopyRow(p, cos.data(), sin.data());
    for (size_t i = 0; i < 4; ++i) {
      const double angle = static_cast<float>(p) * frequencies[i];
      EXPECT_NEAR(cos[i], 0.5 * std::cos(angle), kFloatUlps) << p;
      EXPECT_NEAR(sin[i], 0.5 * std::sin(angle), kFloatUlps) << p;
    }
  }
}

TEST(RopeTable, GivesThreadsThatAskAtOnceTheSameValues) {
  const RopeTable table({.theta = 10000.0}, 8, 1024);
  std::array<std::array<float, 8>, 4> rows{};
  std::vector<std::thread> threads;
  for (auto& row : rows)
    threads.emplace_back([&] { table.CopyRow(700, row.data(), row.data() + 4); });
  for (std::thread& thread : threads) thread.join();
  for (const auto& row : rows) EXPECT_EQ(row, rows[0]);
}

}  // namespace
}  // namespace wideload::checkpoint
