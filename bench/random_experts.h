// The experts of an MoE layer with random weights, for benchmarks of what is around them.
#pragma once

#include "base/thread_pool.h"
#include "compute/testing.h"
#include "moe/moe_runner.h"

namespace wideload::bench {

inline compute::OwnedTensor RandomMatrix(int64_t n, int64_t k, uint32_t seed) {
  return compute::RandomTensor(DType::kF32, {n, k}, seed, 0.05F);
}

// A router of shape.num_experts rows and as many experts of the same weights, `inner` wide.
inline moe::MoeWeights RandomExperts(compute::KernelSet kernels, const moe::MoeShape& shape,
                                     int64_t inner, ThreadPool& pool) {
  moe::MoeWeights weights;
  weights.router = PackPlain(kernels, compute::WeightFormat::kF32,
                             RandomMatrix(shape.num_experts, shape.hidden, 1), pool);
  const compute::ExpertShape expert{.kernels = kernels,
                                    .format = compute::PlainFormat(kernels),
                                    .hidden = shape.hidden,
                                    .inner = inner};
  const compute::OwnedTensor gate = RandomMatrix(inner, shape.hidden, 2);
  const compute::OwnedTensor up = RandomMatrix(inner, shape.hidden, 3);
  const compute::OwnedTensor down = RandomMatrix(shape.hidden, inner, 4);
  const auto source = [](const compute::OwnedTensor& w) {
    return compute::WeightSource::Plain("weight", w.view());
  };
  for (int64_t e = 0; e < shape.num_experts; ++e)
    weights.experts.push_back(
        compute::ExpertWeights::Pack(expert, source(gate), source(up), source(down), pool));
  return weights;
}

}  // namespace wideload::bench
