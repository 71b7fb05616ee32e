// Products of few rows with cold weights in every format, as decoding does them: how fast the
// stored bytes go by, beside plain reading of the same memory in the same moment. Usage:
// bench_formats [--kernels NAME] [--threads N] [--repetitions N] [--n N] [--k K]
#include <emmintrin.h>
#include <fmt/format.h>
#include <stdlib.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "base/cpu_info.h"
#include "base/error.h"
#include "bench_timing.h"
#include "compute/ops.h"
#include "compute/testing.h"

namespace wideload::bench {
namespace {

using compute::Exec;
using compute::KernelSet;
using compute::OwnedTensor;
using compute::PackedMatrix;
using compute::WeightFormat;
using compute::WeightSource;

constexpr int64_t kArenaBytes = int64_t{1}
                                << 30;  // copies of a matrix fill it, one after the other
constexpr std::array<int64_t, 5> kRows = {1, 2, 4, 8, 16};
constexpr std::array kFormats = {WeightFormat::kBF16, WeightFormat::kFp8, WeightFormat::kInt4,
                                 WeightFormat::kMxfp4};

struct Options {
  std::string kernels = "auto";
  int threads = 1;
  int repetitions = 9;
  int64_t n = 2048;
  int64_t k = 7168;
};

OwnedTensor Bytes(DType dtype, const Shape& shape, uint8_t mask, uint8_t base) {
  OwnedTensor tensor(dtype, shape);
  std::mt19937 random(1);
  auto* bytes = static_cast<uint8_t*>(tensor.view().raw_mutable());
  for (int64_t i = 0; i < tensor.view().num_bytes(); ++i) {
    bytes[i] = static_cast<uint8_t>((random() & mask) + base);
  }
  return tensor;
}

PackedMatrix PackRandom(KernelSet kernels, WeightFormat format, const Options& options,
                        ThreadPool& pool) {
  const int64_t n = options.n;
  const int64_t k = options.k;
  const auto pack = [&](const WeightSource& source) {
    return PackedMatrix::Pack({.kernels = kernels, .format = format, .n = n, .k = k}, {&source, 1},
                              pool);
  };
  switch (format) {
    case WeightFormat::kFp8:
      return pack(WeightSource::Fp8(
          "weight", Bytes(DType::kF8E4M3, {n, k}, 0xbf, 0).view(),
          compute::RandomTensor(DType::kF32, {(n + 127) / 128, (k + 127) / 128}, 2).view()));
    case WeightFormat::kInt4:
      return pack(WeightSource::Int4("weight", Bytes(DType::kI32, {n, k / 8}, 0xff, 0).view(),
                                     compute::RandomTensor(DType::kBF16, {n, k / 32}, 2).view()));
    case WeightFormat::kMxfp4:
      return pack(WeightSource::Mxfp4("weight", Bytes(DType::kU8, {n, k / 2}, 0xff, 0).view(),
                                      Bytes(DType::kU8, {n, k / 32}, 7, 120).view()));
    default:
      return compute::PackPlain(kernels, compute::RandomTensor(DType::kBF16, {n, k}, 1), pool);
  }
}

// Adds up the arena on all threads, each reading eight streams with prefetches as products do: one
// stream alone reads about half as fast.
void ReadAll(std::span<const std::byte> arena, ThreadPool& pool) {
  constexpr int64_t kPiece = int64_t{1} << 20;
  constexpr int64_t kStreams = 8;
  constexpr int64_t kStreamBytes = kPiece / kStreams;
  static volatile int64_t kept = 0;
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
}

// One line of the table.
struct Cell {
  std::vector<double> gbytes;   // stored, a second
  std::vector<double> share;    // of the read rate beside it
  std::vector<double> seconds;  // a product
};

class Bench {
 public:
  explicit Bench(const Options& options)
      : options_(options),
        kernels_(compute::ParseKernelSet(options.kernels)),
        pool_("bench", options.threads),
        clock_{.id = options.threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC} {
    for (const WeightFormat format : kFormats) {
      sources_.push_back(PackRandom(kernels_, format, options, pool_));
    }
    for (const int64_t rows : kRows) {
      x_.push_back(
          compute::RandomTensor(compute::PrecisionOf(kernels_).activations, {rows, options.k}, 3));
    }
  }

  void Run() {
    for (int i = 0; i < options_.repetitions; ++i) {
      for (size_t f = 0; f < kFormats.size(); ++f) RunFormat(f);
    }
  }
  void Print() const;

 private:
  template <class Body>
  double Seconds(Body&& body) const {
    const double start = clock_.Seconds();
    body();
    return clock_.Seconds() - start;
  }
  void RunFormat(size_t f) {
    const PackedMatrix& source = sources_[f];
    const int64_t bytes = source.num_bytes();
    const int64_t copies = kArenaBytes / bytes;
    std::vector<PackedMatrix> matrices;
    for (int64_t i = 0; i < copies; ++i) {
      const std::span<std::byte> place(arena_.data() + i * bytes, static_cast<size_t>(bytes));
      std::memcpy(place.data(), source.data(), place.size());
      matrices.push_back(PackedMatrix::Over(source.shape(), Buffer::Over(place)));
    }
    const Exec exec{.kernels = kernels_, .pool = &pool_};
    const double total = static_cast<double>(copies * bytes);
    for (size_t m = 0; m < kRows.size(); ++m) {
      const OwnedTensor y(DType::kF32, {kRows[m], options_.n});
      const double read = Seconds([&] {
        ReadAll({arena_.data(), static_cast<size_t>(kArenaBytes)}, pool_);
      });
      const double seconds = Seconds([&] {
        for (const PackedMatrix& w : matrices) compute::MatMul(exec, x_[m].view(), w, y.view());
      });
      const double rate = static_cast<double>(kArenaBytes) / read;
      read_gbytes_.push_back(rate * 1e-9);
      Cell& cell = cells_[f][m];
      cell.gbytes.push_back(total / seconds * 1e-9);
      cell.share.push_back(total / seconds / rate);
      cell.seconds.push_back(seconds / static_cast<double>(copies));
    }
  }

  Options options_;
  KernelSet kernels_;
  mutable ThreadPool pool_;
  Clock clock_;
  std::vector<PackedMatrix> sources_;  // by kFormats
  std::vector<OwnedTensor> x_;         // by kRows
  Buffer arena_{kArenaBytes};
  std::array<std::array<Cell, kRows.size()>, kFormats.size()> cells_;
  std::vector<double> read_gbytes_;
};

void Bench::Print() const {
  std::array<double, 3> load{};
  ::getloadavg(load.data(), 3);
  fmt::print("machine: {}, {} CPUs; {} threads; load {:.2f} {:.2f} {:.2f}\n", ThisCpu().brand,
             NumAllowedCpus(), options_.threads, load[0], load[1], load[2]);
  const auto [least, most] = std::minmax_element(read_gbytes_.begin(), read_gbytes_.end());
  fmt::print(
      "{}; weights [{}, {}], cold: copies of each fill 1 GiB; {} interleaved repetitions, {} "
      "time\n",
      KernelSetName(kernels_), options_.n, options_.k, options_.repetitions,
      options_.threads == 1 ? "thread CPU" : "wall clock");
  fmt::print(
      "plain reading of that memory, measured before each pass: {:.1f} GB/s [{:.1f}-{:.1f}]\n\n",
      Median(read_gbytes_), *least, *most);
  fmt::print(
      "format  rows  us/product   GB/s stored   share of read rate [min-max]   speed / bf16\n");
  for (size_t f = 0; f < kFormats.size(); ++f) {
    for (size_t m = 0; m < kRows.size(); ++m) {
      const Cell& cell = cells_[f][m];
      const auto [low, high] = std::minmax_element(cell.share.begin(), cell.share.end());
      std::vector<double> speed;
      for (size_t i = 0; i < cell.seconds.size(); ++i) {
        speed.push_back(cells_[0][m].seconds[i] / cell.seconds[i]);
      }
      fmt::print("{:<6} {:>5} {:>11.0f} {:>13.1f}        {:>5.1f} % [{:.0f}-{:.0f}] {:>22.2f}\n",
                 WeightFormatName(kFormats[f]), kRows[m], Median(cell.seconds) * 1e6,
                 Median(cell.gbytes), 100 * Median(cell.share), 100 * *low, 100 * *high,
                 Median(speed));
    }
  }
}

// Errors: kInvalid for anything but the flags above with numbers in range.
Options ParseOptions(std::span<char*> arguments) {
  Options options;
  for (size_t i = 1; i < arguments.size(); i += 2) {
    const std::string flag = arguments[i];
    const std::string text = i + 1 < arguments.size() ? arguments[i + 1] : "";
    const int value = std::atoi(text.c_str());
    if (flag == "--kernels" && !text.empty()) {
      options.kernels = text;
    } else if (flag == "--threads" && value >= 1) {
      options.threads = value;
    } else if (flag == "--repetitions" && value >= 1) {
      options.repetitions = value;
    } else if (flag == "--n" && value >= 1) {
      options.n = value;
    } else if (flag == "--k" && value >= 32 && value % 32 == 0) {
      options.k = value;
    } else {
      Throw(ErrorKind::kInvalid,
            "{}: --kernels NAME, --threads N, --repetitions N, --n N (at least 1) and --k K (a "
            "multiple of 32) are allowed",
            flag);
    }
  }
  return options;
}

}  // namespace
}  // namespace wideload::bench

int main(int argc, char** argv) {
  try {
    wideload::bench::Bench bench(
        wideload::bench::ParseOptions(std::span<char*>(argv, static_cast<size_t>(argc))));
    bench.Run();
    bench.Print();
    return 0;
  } catch (const wideload::Error& error) {
    fmt::print(stderr, "bench_formats: {}\n", error.what());
    return wideload::ExitCode(error.kind());
  }
}
