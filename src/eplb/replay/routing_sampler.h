// Draws routed tokens with given expert shares: the generator behind simulations that have loads
// but no trace. Deterministic for a seed. Not thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "eplb/placement/random.h"

namespace wideload::eplb {

class RoutingSampler {
 public:
  // loads [num_experts] >= 0 with a positive sum; top_k in [1, num_experts]. Errors: kInvalid.
  RoutingSampler(std::span<const double> loads, int32_t top_k, uint64_t seed);

  // One iteration: every expert's share is multiplied by exp(wobble x N(0, 1) - wobble^2 / 2) and
  // capped at 0.999 / top_k; then each token takes top_k distinct experts by systematic sampling
  // with these shares along one of 32 random orders of the experts, drawn anew for the iteration.
  // Returns [num_tokens * top_k] expert ids, token by token.
  std::vector<uint16_t> Sample(int64_t num_tokens, double wobble);

 private:
  void DrawShares(double wobble);

  std::vector<double> loads_;
  int32_t top_k_;
  Random random_;
  std::vector<double> shares_;  // [num_experts] expected choices per token
};

}  // namespace wideload::eplb
