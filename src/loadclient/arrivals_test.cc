#include "loadclient/arrivals.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace wideload::loadclient {
namespace {

// Of the gaps between requests: their standard deviation over their mean.
double GapVariation(const std::vector<double>& times) {
  double sum = 0, squares = 0, before = 0;
  for (const double time : times) {
    sum += time - before;
    squares += (time - before) * (time - before);
    before = time;
  }
  const auto n = static_cast<double>(times.size());
  const double mean = sum / n;
  return std::sqrt(squares / n - mean * mean) / mean;
}

TEST(ArrivalTimes, AreAllZeroAtAnInfiniteRate) {
  EXPECT_EQ(ArrivalTimes({}, 3), std::vector<double>(3, 0.0));
}

TEST(ArrivalTimes, RiseAndEndWhenTheRateSays) {
  const std::vector<double> times = ArrivalTimes({.rate_rps = 50, .seed = 3}, 1000);
  EXPECT_TRUE(std::ranges::is_sorted(times));
  EXPECT_NEAR(times.back(), 20, 1e-9);
  EXPECT_EQ(times, ArrivalTimes({.rate_rps = 50, .seed = 3}, 1000));
  EXPECT_NE(times, ArrivalTimes({.rate_rps = 50, .seed = 4}, 1000));
}

// A gamma distribution of shape b has a standard deviation of 1 / sqrt(b) means; seeded, so that
// 10 % is no chance.
TEST(ArrivalTimes, HaveGapsOfTheBurstinessAskedFor) {
  for (const double burstiness : {0.25, 1.0, 16.0}) {
    const auto times = ArrivalTimes({.rate_rps = 10, .burstiness = burstiness, .seed = 1}, 20000);
    EXPECT_NEAR(GapVariation(times) * std::sqrt(burstiness), 1, 0.1) << burstiness;
  }
}

TEST(ArrivalTimes, OfARampGoFromTheFirstRateToTheLast) {
  for (const Ramp ramp : {Ramp::kLinear, Ramp::kExponential}) {
    const auto times = ArrivalTimes(
        {.burstiness = 1e6, .ramp = ramp, .start_rps = 10, .end_rps = 1000, .seed = 1}, 1001);
    EXPECT_NEAR(times[1] - times[0], ramp == Ramp::kLinear ? 1 / 10.99 : 1 / 10.05, 1e-3);
    EXPECT_NEAR(times[1000] - times[999], 1e-3, 1e-4);
    EXPECT_NEAR(times[501] - times[500], ramp == Ramp::kLinear ? 1 / 505.0 : 1 / 100.0, 1e-3);
  }
}

}  // namespace
}  // namespace wideload::loadclient
