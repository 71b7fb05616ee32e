#include <fmt/format.h>

#include <algorithm>
#include <random>

#include "base/error.h"
#include "compute/ops.h"
#include "compute/testing.h"
#include "core_bounds.h"
#include "kernels_parts.h"

namespace wideload::bench {
namespace {

using compute::Exec;
using compute::ExpertGroup;
using compute::ExpertWeights;
using compute::KernelSet;
using compute::OwnedTensor;

constexpr int64_t kExperts = 128;
constexpr int64_t kHidden = 2048;
constexpr int64_t kInner = 768;
constexpr int64_t kTopK = 8;
constexpr int64_t kTokens = 512;

double Flops(int64_t rows) { return 2.0 * 3 * kHidden * kInner * static_cast<double>(rows); }

// Rows for each expert, and the places of all of them.
class Routed {
 public:
  Routed(KernelSet kernels, std::span<const int64_t> rows_of, std::span<const ExpertWeights> all)
      : x_(compute::RandomTensor(compute::PrecisionOf(kernels).activations, {kTokens, kHidden}, 2)),
        y_(compute::PrecisionOf(kernels).activations, {kTokens * kTopK, kHidden}) {
    int64_t row = 0;
    for (size_t e = 0; e < rows_of.size(); ++e) {
      const size_t first = in_.size();
      for (int64_t i = 0; i < rows_of[e]; ++i, ++row) {
        in_.push_back(static_cast<const std::byte*>(x_.view().raw()) +
                      row % kTokens * x_.view().row_bytes());
        out_.push_back(static_cast<std::byte*>(y_.view().raw_mutable()) +
                       row * y_.view().row_bytes());
      }
      firsts_.push_back(first);
    }
    for (size_t e = 0; e < rows_of.size(); ++e) {
      const auto count = static_cast<size_t>(rows_of[e]);
      groups_.push_back({&all[e], std::span(in_).subspan(firsts_[e], count),
                         std::span(out_).subspan(firsts_[e], count)});
    }
  }
  int64_t num_rows() const { return std::ssize(in_); }
  // GFLOP/s of one pass.
  double Run(const Exec& exec, const Clock& clock) {
    workspace_.Reset();
    const double start = clock.Seconds();
    compute::ExpertMlp(exec, groups_, {}, workspace_);
    return Flops(num_rows()) / (clock.Seconds() - start) * 1e-9;
  }

 private:
  OwnedTensor x_;
  OwnedTensor y_;
  std::vector<const std::byte*> in_;
  std::vector<std::byte*> out_;
  std::vector<size_t> firsts_;
  std::vector<ExpertGroup> groups_;
  Workspace workspace_;
};

std::vector<int64_t> UniformRouting(int64_t rows) {
  std::vector<int64_t> counts(kExperts);
  std::mt19937 random(7);
  for (int64_t i = 0; i < rows; ++i) ++counts[random() % kExperts];
  return counts;
}

void MeasureSet(const KernelsOptions& options, KernelSet kernels) {
  ThreadPool pool("bench", options.threads);
  const Clock clock = ClockFor(options.threads);
  const Exec exec{.kernels = kernels, .pool = &pool};
  const compute::ExpertShape shape{.kernels = kernels,
                                   .format = compute::PlainFormat(kernels),
                                   .hidden = kHidden,
                                   .inner = kInner};
  const auto weights = [&](int64_t n, int64_t k, uint32_t seed) {
    return compute::RandomTensor(DType::kBF16, {n, k}, seed, 0.03F);
  };
  const OwnedTensor gate = weights(kInner, kHidden, 3);
  const OwnedTensor up = weights(kInner, kHidden, 4);
  const OwnedTensor down = weights(kHidden, kInner, 5);
  const auto source = [](const OwnedTensor& w) {
    return compute::WeightSource::Plain("weight", w.view());
  };
  std::vector<ExpertWeights> experts;
  for (int64_t e = 0; e < kExperts; ++e)
    experts.push_back(ExpertWeights::Pack(shape, source(gate), source(up), source(down), pool));
  const std::vector<int64_t> equal(kExperts, kTokens * kTopK / kExperts);
  const std::vector<int64_t> one = {kTokens};
  Routed dense(kernels, one, experts);
  Routed grouped(kernels, equal, experts);
  Routed drawn(kernels, UniformRouting(kTokens * kTopK), experts);
  std::vector<double> dense_rates, grouped_rates, drawn_rates, ratios, drawn_ratios, shares;
  for (int i = -1; i < options.repetitions; ++i) {
    const double peak = PeakGflops(kernels) * options.threads;
    const double rate = dense.Run(exec, clock);
    const double of_groups = grouped.Run(exec, clock);
    const double of_drawn = drawn.Run(exec, clock);
    if (i < 0) continue;  // memory is touched for the first time
    dense_rates.push_back(rate);
    grouped_rates.push_back(of_groups);
    drawn_rates.push_back(of_drawn);
    ratios.push_back(of_groups / rate);
    drawn_ratios.push_back(of_drawn / rate);
    shares.push_back(of_groups / peak);
  }
  const auto [least, most] = std::minmax_element(ratios.begin(), ratios.end());
  fmt::print("{:<12} {:>7.1f} {:>8.1f} {:>8.1f}   {:.2f} [{:.2f}-{:.2f}]   {:.2f}   {:>5.1f} %\n",
             compute::KernelSetName(kernels), Median(dense_rates), Median(grouped_rates),
             Median(drawn_rates), Median(ratios), *least, *most, Median(drawn_ratios),
             100 * Median(shares));
}

}  // namespace

void MeasureExperts(const KernelsOptions& options) {
  fmt::print(
      "\nexperts: {} of {} x {}, {} of them for each of {} tokens, weights cold; beside one expert "
      "with {} rows\n",
      kExperts, kHidden, kInner, kTopK, kTokens, kTokens);
  fmt::print(
      "kernels       GFLOP/s: one   equal    drawn   equal / one         drawn / one   equal of "
      "peak\n");
  for (const KernelSet kernels : options.kernels)
    if (kernels != KernelSet::kReference) MeasureSet(options, kernels);
}

}  // namespace wideload::bench
