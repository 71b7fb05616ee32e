#include "eplb/search/vary_batches.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "eplb/placement/index.h"
#include "eplb/placement/random.h"

namespace wideload::eplb {

BatchLoads VaryBatches(const BatchLoads& recorded, int32_t count, double variation, uint64_t seed) {
  BatchLoads varied{recorded.num_experts, {}, {}};
  std::vector<int32_t> with_load;
  for (int32_t i = 0; i < recorded.size(); ++i) {
    const std::span<const double> load = recorded.At(i);
    if (std::accumulate(load.begin(), load.end(), 0.0) > 0) with_load.push_back(i);
  }
  if (with_load.empty()) return varied;
  Random random(seed);
  const int64_t num_loads = std::ssize(with_load);
  const int64_t originals = std::min<int64_t>(num_loads, count);
  int64_t recorded_so_far = 0;
  for (int64_t i = 0; i < count; ++i) {
    const bool is_recorded = (i + 1) * originals / count > recorded_so_far;
    const int64_t turn = is_recorded ? recorded_so_far++ : (i - recorded_so_far) % originals;
    const int32_t base = with_load[Index(turn * num_loads / originals)];
    const std::span<const double> load = recorded.At(base);
    std::vector<double> scaled(load.begin(), load.end());
    if (!is_recorded)
      for (double& tokens : scaled) tokens *= std::exp(variation * random.Normal());
    const double sum = std::accumulate(scaled.begin(), scaled.end(), 0.0);
    for (double& tokens : scaled) tokens /= sum;
    varied.Add(scaled, recorded.weights[Index(base)]);
  }
  return varied;
}

}  // namespace wideload::eplb
