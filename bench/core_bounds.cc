#include "core_bounds.h"

#include <emmintrin.h>
#include <fmt/format.h>

#include <array>
#include <cstdint>
#include <cstdlib>

#include "base/cpu_info.h"
#include "register_peak.h"

namespace wideload::bench {

using compute::KernelSet;

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
    case KernelSet::kCudaMma:
      break;  // not of a core
  }
  return 0;
}

double ReadGbytes(std::span<const std::byte> arena, ThreadPool& pool, const Clock& clock) {
  constexpr int64_t kPiece = int64_t{1} << 20;
  constexpr int64_t kStreams = 8;
  constexpr int64_t kStreamBytes = kPiece / kStreams;
  static volatile int64_t kept = 0;
  const double start = clock.Seconds();
  pool.Run(static_cast<int64_t>(arena.size()) / kPiece, [&](int64_t piece, int) {
    const std::byte* first = arena.data() + piece * kPiece;
    __m128i sums[4] = {};
    for (int64_t at = 0; at < kStreamBytes; at += 64) {
      for (int64_t stream = 0; stream < kStreams; ++stream) {
        const std::byte* line = first + stream * kStreamBytes + at;
        _mm_prefetch(reinterpret_cast<const char*>(line + 1024), _MM_HINT_T0);
        const auto* parts = reinterpret_cast<const __m128i*>(line);
        for (int64_t j = 0; j < 4; ++j) sums[j] = _mm_add_epi64(sums[j], _mm_load_si128(parts + j));
      }
    }
    const __m128i sum =
        _mm_add_epi64(_mm_add_epi64(sums[0], sums[1]), _mm_add_epi64(sums[2], sums[3]));
    if (_mm_cvtsi128_si64(sum) == 1) kept = kept + 1;
  });
  return static_cast<double>(arena.size()) / (clock.Seconds() - start) * 1e-9;
}

void PrintMachine(int threads) {
  std::array<double, 3> load{};
  ::getloadavg(load.data(), 3);
  fmt::print("machine: {}, {} CPUs; {} threads, {} time; load {:.2f} {:.2f} {:.2f}\n",
             ThisCpu().brand, NumAllowedCpus(), threads, threads == 1 ? "CPU" : "wall clock",
             load[0], load[1], load[2]);
}

}  // namespace wideload::bench
