// Products of fp32 rows with packed fp32 weights (routers), by multiply-adds: not by tensor cores,
// which have 10 bits of an fp32 number.
#pragma once

#include "compute/cuda/gemm_parts.h"

namespace wideload::compute::cuda {

// A block computes a group of columns of kRows rows. k is divided into runs of 4, which the 64
// segments of a block take by turns: a segment is four lanes of a warp, each with four columns.
// Each lane adds its products in one chain, k ascending; the sums of the segments are added in
// ascending order. Neither depends on the number of rows. Compute capability 9.0, 1 and 8 rows: 28
// and 98 registers, 4 and 36 KiB of shared memory.
template <int kRows>
struct GemmF32Kernel {
  using Args = GemmKernelArgs;
  static constexpr int kThreads = 256;
  static constexpr int kRun = 4;
  static constexpr int kSegments = kThreads / 4;
  // From one segment to the next, in floats: an odd number of half lines of banks, so that two
  // segments' four lanes store 128 bytes to different banks.
  static constexpr int kSegmentStride = (kRows * static_cast<int>(kGroupColumns)) | 16;
  static constexpr int64_t kSharedBytes = kSegments * kSegmentStride * int64_t{sizeof(float)};

  // Elements first to first + 3, zeros behind the end.
  static WIDELOAD_DEVICE void LoadRun(const float* row, int64_t first, int64_t k,
                                      float (&x)[kRun]) {
    if (reinterpret_cast<uintptr_t>(row) % sizeof(Words4) == 0 && first + kRun <= k) {
      const Words4 run = device::Load<Words4>(row + first);
      for (int i = 0; i < kRun; ++i) x[i] = device::FloatOfBits(run.values[i]);
      return;
    }
    for (int i = 0; i < kRun; ++i) x[i] = first + i < k ? row[first + i] : 0.0F;
  }

  static WIDELOAD_DEVICE void AddRun(const float* const (&rows)[kRows], const std::byte* weights,
                                     int64_t first, int64_t k, float (&sums)[kRows][4]) {
    float x[kRows][kRun];
    for (int r = 0; r < kRows; ++r) LoadRun(rows[r], first, k, x[r]);
    for (int i = 0; i < kRun; ++i) {
      if (first + i >= k) break;
      const Words4 four =
          device::Load<Words4>(weights + (first + i) * kGroupColumns * int64_t{sizeof(float)});
      for (int r = 0; r < kRows; ++r) {
        for (int c = 0; c < 4; ++c)
          sums[r][c] =
              device::MultiplyAdd(x[r][i], device::FloatOfBits(four.values[c]), sums[r][c]);
      }
    }
  }

  static WIDELOAD_DEVICE void Run(const Args& args) {
    const auto [product, first_row] = RowsOfBlock(args, kRows);
    const int segment = device::Thread() / 4;
    const int columns = device::Thread() % 4 * 4;
    const std::byte* const weights = product.weights + device::BlockY() * args.shape.group_bytes +
                                     columns * int64_t{sizeof(float)};
    const float* rows[kRows];
    for (int r = 0; r < kRows; ++r) {
      const int64_t row = first_row + r < product.rows ? first_row + r : product.rows - 1;
      rows[r] = reinterpret_cast<const float*>(RowOf(product.x, row));
    }
    const int64_t k = args.shape.k;
    float sums[kRows][4] = {};
    for (int64_t first = segment * kRun; first < k; first += kSegments * kRun)
      AddRun(rows, weights, first, k, sums);

    auto* const shared = reinterpret_cast<float*>(device::SharedMemory());
    for (int r = 0; r < kRows; ++r) {
      Words4 four;
      for (int c = 0; c < 4; ++c) four.values[c] = device::BitsOfFloat(sums[r][c]);
      device::Store(shared + segment * kSegmentStride + r * kGroupColumns + columns, four);
    }
    device::SyncBlock();
    const int output = device::Thread();
    const int64_t row = first_row + output / kGroupColumns;
    const int64_t column = device::BlockY() * kGroupColumns + output % kGroupColumns;
    if (output >= kRows * kGroupColumns || row >= product.rows || column >= args.shape.n) return;
    float sum = 0;
    for (int s = 0; s < kSegments; ++s) sum += shared[s * kSegmentStride + output];
    if (product.bias != nullptr) sum += product.bias[column];
    StoreSum(args.shape.epilogue, RowOf(product.y, row), column, sum);
  }
};

template <int kRows>
void LaunchGemmF32(device::Stream& stream, const GemmCall& call, GemmKernelArgs args) {
  using Kernel = GemmF32Kernel<kRows>;
  const int64_t num_tiles = CutRows(stream, call, kRows, args);
  device::Launch<Kernel>(stream,
                         {.blocks = num_tiles,
                          .blocks_y = args.num_units,
                          .threads = Kernel::kThreads,
                          .shared_bytes = Kernel::kSharedBytes},
                         args);
}

inline void GemmF32(device::Stream& stream, const GemmCall& call) {
  const int64_t most_rows = MostRows(call);
  if (most_rows == 0) return;
  GemmKernelArgs args;
  args.shape = call.shape;
  args.num_units = (call.shape.n + kGroupColumns - 1) / kGroupColumns;
  if (most_rows == 1)
    LaunchGemmF32<1>(stream, call, args);
  else
    LaunchGemmF32<8>(stream, call, args);
}

}  // namespace wideload::compute::cuda
