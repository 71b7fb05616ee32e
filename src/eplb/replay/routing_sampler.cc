#include "eplb/replay/routing_sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "base/error.h"

namespace wideload::eplb {
namespace {

constexpr int32_t kOrders = 32;
// Below 1, so that a token never takes an expert twice.
constexpr double kMaxShare = 0.999;

}  // namespace

RoutingSampler::RoutingSampler(std::span<const double> loads, int32_t top_k, uint64_t seed)
    : loads_(loads.begin(), loads.end()), top_k_(top_k), random_(seed), shares_(loads.size()) {
  if (top_k < 1 || static_cast<size_t>(top_k) >= loads.size())
    Throw(ErrorKind::kInvalid, "top_k is {}; allowed: 1 to {} (one less than the experts)", top_k,
          static_cast<int64_t>(loads.size()) - 1);
  double sum = 0;
  for (const double load : loads) {
    if (!(load >= 0) || !std::isfinite(load))
      Throw(ErrorKind::kInvalid, "a load is {}; it must be 0 or more", load);
    sum += load;
  }
  if (!(sum > 0)) Throw(ErrorKind::kInvalid, "all loads are 0; nothing can be drawn from them");
}

// Shares add up to top_k; what the cap cuts off goes to the others in proportion, and evenly where
// the others have none.
void RoutingSampler::DrawShares(double wobble) {
  for (size_t e = 0; e < loads_.size(); ++e)
    shares_[e] = loads_[e] * std::exp(wobble * random_.Normal() - wobble * wobble / 2);
  std::vector<bool> capped(shares_.size(), false);
  for (bool again = true; again;) {
    again = false;
    double free_sum = 0;
    double target = top_k_;
    int32_t num_free = 0;
    for (size_t e = 0; e < shares_.size(); ++e) {
      if (capped[e]) {
        target -= kMaxShare;
      } else {
        free_sum += shares_[e];
        ++num_free;
      }
    }
    for (size_t e = 0; e < shares_.size(); ++e) {
      if (capped[e]) continue;
      shares_[e] = free_sum > 0 ? shares_[e] * target / free_sum : target / num_free;
      if (shares_[e] <= kMaxShare) continue;
      shares_[e] = kMaxShare;
      capped[e] = again = true;
    }
  }
}

std::vector<uint16_t> RoutingSampler::Sample(int64_t num_tokens, double wobble) {
  DrawShares(wobble);
  const size_t experts = shares_.size();
  std::vector<std::vector<uint16_t>> orders(kOrders, std::vector<uint16_t>(experts));
  std::vector<std::vector<double>> sums(kOrders, std::vector<double>(experts));
  for (size_t o = 0; o < orders.size(); ++o) {
    std::iota(orders[o].begin(), orders[o].end(), uint16_t{0});
    for (size_t i = experts; i > 1; --i)
      std::swap(orders[o][i - 1],
                orders[o][static_cast<size_t>(random_.Below(static_cast<int32_t>(i)))]);
    double sum = 0;
    for (size_t i = 0; i < experts; ++i) sums[o][i] = sum += shares_[orders[o][i]];
  }
  std::vector<uint16_t> ids;
  ids.reserve(static_cast<size_t>(num_tokens * top_k_));
  for (int64_t t = 0; t < num_tokens; ++t) {
    const auto o = static_cast<size_t>(random_.Below(kOrders));
    const double start = random_.Uniform();
    size_t i = 0;
    for (int32_t k = 0; k < top_k_; ++k) {
      // The last comparison guards against the rounding of the sum.
      while (i + 1 < experts && sums[o][i] <= start + k) ++i;
      ids.push_back(orders[o][i]);
      if (i + 1 < experts) ++i;
    }
  }
  return ids;
}

}  // namespace wideload::eplb
