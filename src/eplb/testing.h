// Loads for the tests of this module.
#pragma once

#include <cmath>
#include <vector>

#include "eplb/placement/batch_loads.h"
#include "eplb/placement/random.h"

namespace wideload::eplb {

// A whole optimum may exceed the fractional one by the rounding of doubles only.
inline constexpr double kSumRounding = 1e-6;
// Sums of a few hundred floats.
inline constexpr double kFloatRounding = 1e-4;

// Skewed loads that wobble from batch to batch.
inline BatchLoads RandomBatches(int32_t experts, int32_t count, uint64_t seed) {
  Random random(seed);
  std::vector<double> base;
  for (int32_t e = 0; e < experts; ++e) base.push_back(100 * std::exp(random.Normal()));
  BatchLoads scenarios{experts, {}, {}};
  for (int32_t k = 0; k < count; ++k) {
    std::vector<double> load;
    for (const double b : base) load.push_back(std::floor(b * std::exp(0.3 * random.Normal())));
    scenarios.Add(load);
  }
  return scenarios;
}

}  // namespace wideload::eplb
