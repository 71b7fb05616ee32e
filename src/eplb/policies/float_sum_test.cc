#include "eplb/policies/float_sum.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>
#include <vector>

namespace wideload::eplb {
namespace {

constexpr float kBig = 16777216;  // 2^24: adding 1 to it is lost, adding 2 is not

TEST(PyTorchSum, AddsShortRowsInFourLanes) {
  // Lane 0 takes entries 0, 4, 5; then lanes 1, 2, 3: (1 + 1 + 2^24) rounds down, in file order it
  // would not.
  EXPECT_EQ(PyTorchSum(std::vector<float>{1, 0, 0, 0, kBig, 1}), kBig);
  EXPECT_EQ(PyTorchSum(std::vector<float>{1, 1, 0, 0, 0, kBig}), kBig);
  EXPECT_EQ(PyTorchSum(std::vector<float>{1, 0, 0, 0, 1, kBig}), kBig + 2);
}

TEST(PyTorchSum, AddsTheTailBeforeTheLanes) {
  std::vector<float> row(10, 0);
  row[0] = kBig;
  row[8] = row[9] = 1;
  EXPECT_EQ(PyTorchSum(row), kBig + 2);
}

TEST(PyTorchSum, IsExactForSmallIntegersOfAnyLength) {
  std::mt19937 random(1);
  for (size_t n = 0; n < 3000; n = n < 70 ? n + 1 : n * 3 / 2) {
    std::vector<float> row(n);
    for (float& x : row) x = static_cast<float>(random() % 1000);
    EXPECT_EQ(PyTorchSum(row), std::accumulate(row.begin(), row.end(), 0.0F)) << n;
  }
}

TEST(PyTorchSum, StaysNearTheTrueSumOfALongRow) {
  const std::vector<float> row(1 << 20, 0.1F);
  const double exact = 0.1F * static_cast<double>(row.size());
  EXPECT_NEAR(PyTorchSum(row), exact, exact * 1e-6);  // added in file order it would be off by 1e-2
}

TEST(PyTorchMean, DividesInSinglePrecision) {
  EXPECT_EQ(PyTorchMean(std::vector<float>{1, 1, 0}), 2.0F / 3.0F);
  EXPECT_TRUE(std::isnan(PyTorchMean({})));
}

}  // namespace
}  // namespace wideload::eplb
