#include "eplb/placement/batch_loads.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"

namespace wideload::eplb {

bool HasLoad(std::span<const double> loads) {
  return std::any_of(loads.begin(), loads.end(), [](double tokens) { return tokens > 0; });
}

void BatchLoads::Add(std::span<const double> load, double weight) {
  if (load.size() != static_cast<size_t>(num_experts))
    Throw(ErrorKind::kInvalid, "a batch has {} loads; it must have one for each of {} experts",
          load.size(), num_experts);
  for (size_t e = 0; e < load.size(); ++e)
    if (!(load[e] >= 0) || !std::isfinite(load[e]))
      Throw(ErrorKind::kInvalid, "a batch's load of expert {} is {}; it must be 0 or more", e,
            load[e]);
  loads.insert(loads.end(), load.begin(), load.end());
  weights.push_back(weight);
}

std::vector<double> BatchLoads::Mean() const {
  std::vector<double> mean(static_cast<size_t>(num_experts), 0.0);
  for (int32_t i = 0; i < size(); ++i) {
    const std::span<const double> load = At(i);
    const double sum = std::accumulate(load.begin(), load.end(), 0.0);
    if (sum <= 0) continue;
    const double scale = weights[static_cast<size_t>(i)] / sum;
    for (size_t e = 0; e < mean.size(); ++e) mean[e] += load[e] * scale;
  }
  return mean;
}

std::vector<double> BatchLoads::Sum() const {
  std::vector<double> sum(static_cast<size_t>(num_experts), 0.0);
  for (int32_t i = 0; i < size(); ++i)
    for (size_t e = 0; e < sum.size(); ++e) sum[e] += At(i)[e];
  for (size_t e = 0; e < unbatched.size(); ++e) sum[e] += unbatched[e];
  return sum;
}

void BatchLoads::UnbatchLast() {
  const std::span<const double> last = At(size() - 1);
  unbatched.resize(last.size(), 0.0);
  for (size_t e = 0; e < last.size(); ++e) unbatched[e] += last[e];
  loads.resize(loads.size() - last.size());
  weights.pop_back();
}

BatchLoads BatchLoads::WithLoad() const {
  BatchLoads loaded{num_experts};
  for (int32_t i = 0; i < size(); ++i)
    if (HasLoad(At(i))) loaded.Add(At(i), weights[static_cast<size_t>(i)]);
  return loaded;
}

BatchLoads EqualLoads(int32_t num_experts) {
  BatchLoads equal{num_experts};
  equal.Add(std::vector<double>(static_cast<size_t>(num_experts), 1.0));
  return equal;
}

}  // namespace wideload::eplb
