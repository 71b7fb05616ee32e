#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <random>
#include <span>
#include <vector>

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
using compute::WeightFormat;
using compute::WeightSource;

constexpr int64_t kArenaBytes = int64_t{1}
                                << 30;  // copies of a matrix fill it, one after the other
constexpr std::array<int64_t, 5> kRows = {1, 2, 4, 8, 16};
constexpr std::array kFormats = {WeightFormat::kBF16, WeightFormat::kFp8, WeightFormat::kInt4,
                                 WeightFormat::kMxfp4};

OwnedTensor Bytes(DType dtype, const Shape& shape, uint8_t mask, uint8_t base) {
  OwnedTensor tensor(dtype, shape);
  std::mt19937 random(1);
  auto* bytes = static_cast<uint8_t*>(tensor.view().raw_mutable());
  for (int64_t i = 0; i < tensor.view().num_bytes(); ++i) {
    bytes[i] = static_cast<uint8_t>((random() & mask) + base);
  }
  return tensor;
}

PackedMatrix PackRandom(KernelSet kernels, WeightFormat format, const KernelsOptions& options,
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

// One line of the table.
struct Cell {
  std::vector<double> gbytes;   // stored, a second
  std::vector<double> share;    // of the read rate beside it
  std::vector<double> seconds;  // a product
};

class FormatsBench {
 public:
  FormatsBench(const KernelsOptions& options, KernelSet kernels)
      : options_(options),
        kernels_(kernels),
        pool_("bench", options.threads),
        clock_(ClockFor(options.threads)) {
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
      const double rate =
          ReadGbytes({arena_.data(), static_cast<size_t>(kArenaBytes)}, pool_, clock_);
      const double seconds = Seconds([&] {
        for (const PackedMatrix& w : matrices) compute::MatMul(exec, x_[m].view(), w, y.view());
      });
      read_gbytes_.push_back(rate);
      Cell& cell = cells_[f][m];
      cell.gbytes.push_back(total / seconds * 1e-9);
      cell.share.push_back(cell.gbytes.back() / rate);
      cell.seconds.push_back(seconds / static_cast<double>(copies));
    }
  }

  KernelsOptions options_;
  KernelSet kernels_;
  mutable ThreadPool pool_;
  Clock clock_;
  std::vector<PackedMatrix> sources_;  // by kFormats
  std::vector<OwnedTensor> x_;         // by kRows
  Buffer arena_{kArenaBytes};
  std::array<std::array<Cell, kRows.size()>, kFormats.size()> cells_;
  std::vector<double> read_gbytes_;
};

void FormatsBench::Print() const {
  const auto [least, most] = std::minmax_element(read_gbytes_.begin(), read_gbytes_.end());
  fmt::print("\nformats, {}: weights [{}, {}], cold: copies of each fill 1 GiB\n",
             KernelSetName(kernels_), options_.n, options_.k);
  fmt::print(
      "plain reading of that memory, measured before each pass: {:.1f} GB/s [{:.1f}-{:.1f}]\n",
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

}  // namespace

void MeasureFormats(const KernelsOptions& options) {
  for (const KernelSet kernels : options.kernels) {
    if (kernels == KernelSet::kReference) continue;
    FormatsBench bench(options, kernels);
    bench.Run();
    bench.Print();
  }
}

}  // namespace wideload::bench
