#include "eplb/search/even_model.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>

#include "base/error.h"
#include "eplb/placement/index.h"

namespace wideload::eplb {
namespace {

// At least this part of the covariances is taken for chance, however many batches there are: later
// batches are not quite of the recorded kind.
constexpr double kLeastShrinkage = 0.2;
// From this shrinkage on, covariances are not told apart from chance: none is kept.
constexpr double kAllChance = 0.93;
// Drift that no recording shows: every expert's share is off by about this part of itself.
constexpr double kDrift = 0.05;

// Batches as shares of their own total, their weighted mean and the deviations from it.
struct Shares {
  int32_t num_experts = 0;
  int32_t num_batches = 0;
  double tokens = 0;              // of a batch, weighted mean; 0: the loads are no counts
  double effective_batches = 0;   // as many of equal weight say as much
  std::vector<double> weights;    // [num_batches] sum up to 1
  std::vector<double> mean;       // [num_experts]
  std::vector<double> deviation;  // [num_batches * num_experts]

  std::span<const double> Row(int32_t i) const {
    return std::span(deviation).subspan(Index(i) * Index(num_experts), Index(num_experts));
  }
};

bool IsWhole(double load) { return load == std::floor(load); }

// The mean of all batches; deviations and weights of those that are kept.
Shares SharesOf(const BatchLoads& loaded) {
  const size_t experts = Index(loaded.num_experts);
  Shares shares{.num_experts = loaded.num_experts,
                .num_batches = std::min(loaded.size(), kMaxModelBatches)};
  const bool counts = std::all_of(loaded.loads.begin(), loaded.loads.end(), IsWhole);
  shares.mean.assign(experts, 0.0);
  const double all = std::accumulate(loaded.weights.begin(), loaded.weights.end(), 0.0);
  for (int32_t i = 0; i < loaded.size(); ++i) {
    const std::span<const double> load = loaded.At(i);
    const double sum = std::accumulate(load.begin(), load.end(), 0.0);
    const double weight = loaded.weights[Index(i)] / all;
    if (counts) shares.tokens += weight * sum;
    for (size_t e = 0; e < experts; ++e) shares.mean[e] += weight * load[e] / sum;
  }
  double kept = 0;
  double squares = 0;
  for (int32_t k = 0; k < shares.num_batches; ++k) {
    const auto i = static_cast<int32_t>(int64_t{k} * loaded.size() / shares.num_batches);
    const std::span<const double> load = loaded.At(i);
    const double sum = std::accumulate(load.begin(), load.end(), 0.0);
    for (size_t e = 0; e < experts; ++e) shares.deviation.push_back(load[e] / sum - shares.mean[e]);
    shares.weights.push_back(loaded.weights[Index(i)]);
    kept += loaded.weights[Index(i)];
  }
  for (double& weight : shares.weights) {
    weight /= kept;
    squares += weight * weight;
  }
  shares.effective_batches = 1 / squares;
  return shares;
}

// Variances of the shares, smoothed: those of a few batches scatter so much that the quietest
// expert is mostly a lucky one. The pattern they are drawn to is chance plus a wobble in proportion
// to the mean; how far, by how much more they scatter than variances of that pattern would.
std::vector<double> Variances(const Shares& shares) {
  const double n = shares.effective_batches;
  const size_t experts = shares.mean.size();
  std::vector<double> variance(experts, 0.0);
  for (int32_t i = 0; n > 1 && i < shares.num_batches; ++i)
    for (size_t e = 0; e < experts; ++e)
      variance[e] += shares.weights[Index(i)] * shares.Row(i)[e] * shares.Row(i)[e] * n / (n - 1);
  const double chance = shares.tokens > 0 ? 1 / shares.tokens : 0;
  double above = 0;
  double squares = 0;
  for (size_t e = 0; e < experts; ++e) {
    above += variance[e] - shares.mean[e] * chance;
    squares += shares.mean[e] * shares.mean[e];
  }
  const double wobble = std::max(0.0, above / squares);
  const auto pattern = [&](size_t e) {
    return shares.mean[e] * (chance + wobble * shares.mean[e]);
  };
  double scatter = 0;
  double sum = 0;
  for (size_t e = 0; e < experts; ++e) {
    if (pattern(e) <= 0) continue;
    const double ratio = variance[e] / pattern(e) - 1;
    scatter += pattern(e) * ratio * ratio;
    sum += pattern(e);
  }
  const double part =
      n <= 1 || sum <= 0 || scatter <= 0 ? 1.0 : std::min(1.0, 2 * sum / ((n - 1) * scatter));
  for (size_t e = 0; e < experts; ++e) variance[e] = (1 - part) * variance[e] + part * pattern(e);
  return variance;
}

// How much of the covariances is chance, after Schaefer and Strimmer (2005): their variance over
// their square, summed over pairs of experts. Sums over pairs come from products of batches, less
// what an expert has with itself.
double Shrinkage(const Shares& shares) {
  const double n = shares.effective_batches;
  if (n <= 1) return 1;
  double covariance_squares = 0;  // sum over pairs of w^2, w the weighted mean of the products
  double product_squares = 0;     // sum over pairs of the weighted mean of the products' squares
  std::vector<double> own(shares.mean.size(), 0.0);
  for (int32_t i = 0; i < shares.num_batches; ++i) {
    const std::span<const double> row = shares.Row(i);
    for (int32_t j = 0; j < shares.num_batches; ++j) {
      const std::span<const double> other = shares.Row(j);
      const double product = std::inner_product(row.begin(), row.end(), other.begin(), 0.0);
      covariance_squares += shares.weights[Index(i)] * shares.weights[Index(j)] * product * product;
    }
    double squares = 0;
    double fourths = 0;
    for (size_t e = 0; e < row.size(); ++e) {
      const double square = row[e] * row[e];
      squares += square;
      fourths += square * square;
      own[e] += shares.weights[Index(i)] * square;
    }
    product_squares += shares.weights[Index(i)] * (squares * squares - fourths);
  }
  for (const double variance : own) covariance_squares -= variance * variance;
  const double noise = (product_squares - covariance_squares) / (n - 1);
  const double lambda =
      covariance_squares > 0 ? std::clamp(noise / covariance_squares, 0.0, 1.0) : 1.0;
  return lambda >= kAllChance ? 1.0 : std::max(kLeastShrinkage, lambda * lambda);
}

}  // namespace

EvenModel MakeEvenModel(const BatchLoads& recorded, double total_speed) {
  const BatchLoads loaded = recorded.WithLoad();
  if (loaded.size() == 0)
    Throw(ErrorKind::kInvalid, "even plan: {} batches are given, none with load", recorded.size());
  const Shares shares = SharesOf(loaded);
  const std::vector<double> variance = Variances(shares);
  const double shrinkage = Shrinkage(shares);
  EvenModel model{.num_experts = shares.num_experts};
  if (shrinkage < 1) {
    model.num_batches = shares.num_batches;
    model.weights = shares.weights;
  } else {  // all batches are their mean: one says it
    model.num_batches = 1;
    model.weights = {1.0};
  }
  for (int32_t i = 0; i < model.num_batches; ++i)
    for (size_t e = 0; e < shares.mean.size(); ++e)
      model.loads.push_back(total_speed *
                            (shares.mean[e] + std::sqrt(1 - shrinkage) * shares.Row(i)[e]));
  for (size_t e = 0; e < shares.mean.size(); ++e) {
    const double drift = kDrift * shares.mean[e];
    model.variance.push_back(
        total_speed * total_speed *
        ((shrinkage + 1 / shares.effective_batches) * variance[e] + drift * drift));
  }
  return model;
}

}  // namespace wideload::eplb
