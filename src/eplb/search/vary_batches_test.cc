#include "eplb/search/vary_batches.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>

#include "eplb/testing.h"

namespace wideload::eplb {
namespace {

TEST(VaryBatches, HasEveryRecordedOneOnceEvenlyBetweenItsVariations) {
  const BatchLoads recorded = RandomBatches(8, 5, 3);
  const BatchLoads varied = VaryBatches(recorded, 40, 0.2, 7);
  ASSERT_EQ(varied.size(), 40);
  int32_t found = 0;
  for (int32_t i = 0; i < varied.size(); ++i) {
    const std::span<const double> load = recorded.At(std::min(found, recorded.size() - 1));
    const double sum = std::accumulate(load.begin(), load.end(), 0.0);
    double distance = 0;
    for (size_t e = 0; e < load.size(); ++e) distance += std::abs(load[e] / sum - varied.At(i)[e]);
    found += distance < kSumRounding;
    EXPECT_EQ(found, (i + 1) / 8) << "scenario " << i;
  }
  EXPECT_EQ(VaryBatches(recorded, 3, 0.2, 7).size(), 3);
}

}  // namespace
}  // namespace wideload::eplb
