#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "compute/ops.h"
#include "compute/testing.h"
#include "core_bounds.h"
#include "kernels_parts.h"

namespace wideload::bench {
namespace {

using compute::Exec;
using compute::KernelSet;
using compute::OwnedTensor;
using compute::PackedMatrix;

struct GemmShape {
  int64_t n = 0;
  int64_t k = 0;
};
constexpr std::array kShapes = {GemmShape{1536, 2048}, GemmShape{2048, 7168}, GemmShape{768, 192},
                                GemmShape{192, 64}};
constexpr std::array<int64_t, 5> kRows = {1, 8, 32, 128, 512};

// One line of the table: a product, its times, and the peaks seen beside them.
struct Measurement {
  KernelSet kernels;
  GemmShape shape;
  int64_t rows;
  PackedMatrix weights;
  OwnedTensor x;
  OwnedTensor y;
  int64_t calls = 1;  // per repetition, about 3 ms
  std::vector<double> gflops;
  std::vector<double> share;

  double flops() const { return 2.0 * static_cast<double>(rows * shape.n * shape.k); }
  double seconds(const Exec& exec, int64_t count) const {
    const Clock clock = ClockFor(exec.pool->num_threads());
    const double start = clock.Seconds();
    for (int64_t i = 0; i < count; ++i) compute::MatMul(exec, x.view(), weights, y.view());
    return clock.Seconds() - start;
  }
};

Measurement Prepare(KernelSet kernels, GemmShape shape, int64_t rows, ThreadPool& pool) {
  const DType dtype = compute::PrecisionOf(kernels).activations;
  const OwnedTensor w = compute::RandomTensor(DType::kBF16, {shape.n, shape.k}, 1);
  Measurement m{.kernels = kernels,
                .shape = shape,
                .rows = rows,
                .weights = compute::PackPlain(kernels, w, pool),
                .x = compute::RandomTensor(dtype, {rows, shape.k}, 2),
                .y = OwnedTensor(DType::kF32, {rows, shape.n}),
                .gflops = {},
                .share = {}};
  const Exec exec{.kernels = kernels, .pool = &pool};
  m.seconds(exec, 1);
  const double once = m.seconds(exec, 2) / 2;
  m.calls = std::clamp<int64_t>(static_cast<int64_t>(0.003 / once), 1, 20000);
  return m;
}

void Print(const Measurement& m) {
  const auto [least, most] = std::minmax_element(m.gflops.begin(), m.gflops.end());
  const double median = Median(m.gflops);
  const double weight_gbytes = static_cast<double>(m.weights.num_bytes()) * median / m.flops();
  fmt::print("{:<12} {:>5} {:>5} {:>5}  {:>8.1f} [{:.1f}-{:.1f}]  {:>7.1f}  {:>5.1f} %\n",
             compute::KernelSetName(m.kernels), m.rows, m.shape.n, m.shape.k, median, *least, *most,
             weight_gbytes, 100 * Median(m.share));
}

}  // namespace

void MeasureGemm(const KernelsOptions& options) {
  ThreadPool pool("bench", options.threads);
  fmt::print(
      "\ngemm: weights hot; GB/s counts packed weights once per call; share is of {} x the "
      "register-only loop of the same instructions\n",
      options.threads);
  fmt::print("kernels       rows     n     k   GFLOP/s [min-max]     GB/s    share of peak\n");
  for (const GemmShape shape : kShapes) {
    std::vector<Measurement> measurements;
    for (const KernelSet kernels : options.kernels)
      for (const int64_t rows : kRows) measurements.push_back(Prepare(kernels, shape, rows, pool));
    for (int i = 0; i < options.repetitions; ++i) {
      double peak = 0;
      KernelSet peak_of = KernelSet::kReference;
      for (Measurement& m : measurements) {
        if (peak == 0 || m.kernels != peak_of) peak = PeakGflops(m.kernels);
        peak_of = m.kernels;
        const Exec exec{.kernels = m.kernels, .pool = &pool};
        const double calls = static_cast<double>(m.calls);
        m.gflops.push_back(m.flops() * calls / m.seconds(exec, m.calls) * 1e-9);
        m.share.push_back(m.gflops.back() / (peak * options.threads));
      }
    }
    for (const Measurement& m : measurements) Print(m);
  }
  for (const KernelSet kernels : options.kernels)
    fmt::print("peak of one core, {}: {:.1f} GFLOP/s\n", compute::KernelSetName(kernels),
               PeakGflops(kernels));
}

}  // namespace wideload::bench
