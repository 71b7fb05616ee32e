// GEMM of every kernel set as a share of what one core's registers can do in the same run.
// Usage: bench_gemm [--threads N] [--repetitions N]
#include <fmt/format.h>
#include <stdlib.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <vector>

#include "base/cpu_info.h"
#include "base/error.h"
#include "bench_gemm_peak.h"
#include "bench_timing.h"
#include "compute/ops.h"
#include "compute/testing.h"

namespace wideload::bench {
namespace {

using compute::Exec;
using compute::KernelSet;
using compute::OwnedTensor;
using compute::PackedMatrix;

constexpr std::array kAllSets = {KernelSet::kReference, KernelSet::kAvx2, KernelSet::kAvx512,
                                 KernelSet::kAvx512Bf16, KernelSet::kAmx};
struct GemmShape {
  int64_t n = 0;
  int64_t k = 0;
};
constexpr std::array kShapes = {GemmShape{1536, 2048}, GemmShape{768, 192}, GemmShape{192, 64}};
constexpr std::array<int64_t, 5> kRows = {1, 8, 32, 128, 512};

// One core's peak in GFLOP/s, measured for about 10 ms.
double PeakGflops(KernelSet kernels) {
  const Clock clock{.id = CLOCK_THREAD_CPUTIME_ID};
  static volatile float kept = 0;
  float sink = 0;
  const auto measure = [&](auto peak) {
    const int64_t rounds = 300000;
    const double start = clock.Seconds();
    const double flops = peak(rounds, &sink);
    const double gflops = flops / (clock.Seconds() - start) * 1e-9;
    kept = kept + sink;
    return gflops;
  };
  switch (kernels) {
    case KernelSet::kReference:
      return measure(SseMulAddPeak);
    case KernelSet::kAvx2:
      return measure(Avx2FmaPeak);
    case KernelSet::kAvx512:
      return measure(Avx512FmaPeak);
    case KernelSet::kAvx512Bf16:
      return measure(Avx512Bf16Peak);
    case KernelSet::kAmx:
      return measure(AmxBf16Peak);
  }
  return 0;
}

bool IsSupported(KernelSet kernels) {
  const auto supported = compute::SupportedKernelSets();
  return std::find(supported.begin(), supported.end(), kernels) != supported.end();
}

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
    const bool alone = exec.pool->num_threads() == 1;
    const Clock clock{.id = alone ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC};
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

void Run(int threads, int repetitions) {
  ThreadPool pool("bench", threads);
  std::array<double, 3> load{};
  ::getloadavg(load.data(), 3);
  fmt::print("machine: {}, {} CPUs; {} threads; load {:.2f} {:.2f} {:.2f}\n", ThisCpu().brand,
             NumAllowedCpus(), threads, load[0], load[1], load[2]);
  fmt::print(
      "{} interleaved repetitions, {} time; weights hot; GB/s counts packed weights once per "
      "call;\n",
      repetitions, threads == 1 ? "thread CPU" : "wall clock");
  fmt::print(
      "share is of {} x the register-only loop of the same instructions, measured before "
      "each repetition\n\n",
      threads);
  fmt::print("kernels       rows     n     k   GFLOP/s [min-max]     GB/s    share of peak\n");
  for (const GemmShape shape : kShapes) {
    std::vector<Measurement> measurements;
    for (const KernelSet kernels : kAllSets) {
      for (const int64_t rows : kRows) {
        if (IsSupported(kernels)) measurements.push_back(Prepare(kernels, shape, rows, pool));
      }
    }
    for (int i = 0; i < repetitions; ++i) {
      double peak = 0;
      KernelSet peak_of = KernelSet::kReference;
      for (Measurement& m : measurements) {
        if (peak == 0 || m.kernels != peak_of) peak = PeakGflops(m.kernels);
        peak_of = m.kernels;
        const Exec exec{.kernels = m.kernels, .pool = &pool};
        const double calls = static_cast<double>(m.calls);
        m.gflops.push_back(m.flops() * calls / m.seconds(exec, m.calls) * 1e-9);
        m.share.push_back(m.gflops.back() / (peak * threads));
      }
    }
    for (const Measurement& m : measurements) Print(m);
    for (const KernelSet kernels : kAllSets) {
      if (!IsSupported(kernels)) {
        fmt::print("{:<12} {:>5} {:>5} {:>5}  not measured here\n", compute::KernelSetName(kernels),
                   "-", shape.n, shape.k);
      }
    }
  }
  for (const KernelSet kernels : kAllSets) {
    if (!IsSupported(kernels)) continue;
    fmt::print("peak of one core, {}: {:.1f} GFLOP/s\n", compute::KernelSetName(kernels),
               PeakGflops(kernels));
  }
}

struct Options {
  int threads = 1;
  int repetitions = 9;
};

// Errors: kInvalid for anything but the two flags with numbers.
Options ParseOptions(std::span<char*> arguments) {
  Options options;
  for (size_t i = 1; i < arguments.size(); i += 2) {
    const std::string flag = arguments[i];
    const int value = i + 1 < arguments.size() ? std::atoi(arguments[i + 1]) : 0;
    if (flag == "--threads" && value >= 1) {
      options.threads = value;
    } else if (flag == "--repetitions" && value >= 9) {
      options.repetitions = value;
    } else {
      Throw(ErrorKind::kInvalid,
            "{}: --threads N (at least 1) and --repetitions N (at least 9) are allowed", flag);
    }
  }
  return options;
}

}  // namespace
}  // namespace wideload::bench

int main(int argc, char** argv) {
  try {
    const auto options =
        wideload::bench::ParseOptions(std::span<char*>(argv, static_cast<size_t>(argc)));
    wideload::bench::Run(options.threads, options.repetitions);
    return 0;
  } catch (const wideload::Error& error) {
    fmt::print(stderr, "bench_gemm: {}\n", error.what());
    return wideload::ExitCode(error.kind());
  }
}
