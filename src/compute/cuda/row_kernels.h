// Kernels that treat every row alike.
#pragma once

#include "compute/cuda/kernels.h"
#include "device/kernel.h"

namespace wideload::compute::cuda {

WIDELOAD_DEVICE const std::byte* RowOf(const InRows& x, int64_t row) {
  return x.pointers != nullptr ? x.pointers[row] : x.base + row * x.stride_bytes;
}
WIDELOAD_DEVICE std::byte* RowOf(const OutRows& y, int64_t row) {
  return y.pointers != nullptr ? y.pointers[row] : y.base + row * y.stride_bytes;
}

// Element i of a row = value, rounded to bf16 unless the row is fp32.
WIDELOAD_DEVICE void StoreElement(std::byte* row, bool is_f32, int64_t i, float value) {
  if (is_f32)
    reinterpret_cast<float*>(row)[i] = value;
  else
    reinterpret_cast<uint16_t*>(row)[i] = device::ToBf16(value);
}

// A warp for each run of each row: lane l adds the squares of elements l, l + 32, ... and the
// lanes' sums are added in WarpSum's tree, whatever the grid.
struct NormKernel {
  struct Args {
    NormArgs norm;
    int64_t num_runs;
  };
  static constexpr int kThreads = 128;
  static WIDELOAD_DEVICE void Run(const Args& args) {
    const NormArgs& norm = args.norm;
    const int64_t run = device::Block() * (device::NumThreads() / device::kWarp) + device::Warp();
    if (run >= args.num_runs) return;
    const int64_t row = run / norm.runs.heads;
    const int64_t first = run % norm.runs.heads * norm.runs.stride;
    const int64_t width = norm.runs.width;
    const auto* x = reinterpret_cast<const float*>(RowOf(norm.x, row)) + first;
    float squares = 0;
    for (int64_t i = device::Lane(); i < width; i += device::kWarp)
      squares = device::MultiplyAdd(x[i], x[i], squares);
    squares = device::WarpSum(squares);
    const float mean = device::Divide(squares, static_cast<float>(width));
    const float scale = device::Divide(1.0F, device::SquareRoot(mean + norm.eps));
    std::byte* const y = RowOf(norm.y, row);
    for (int64_t i = device::Lane(); i < width; i += device::kWarp) {
      const float weight = norm.weight != nullptr ? norm.weight[i] : 1.0F;
      StoreElement(y, norm.y_is_f32, first + i, x[i] * scale * weight);
    }
  }
};

inline void Norm(device::Stream& stream, const NormArgs& args, int64_t rows) {
  constexpr int64_t kWarpsPerBlock = NormKernel::kThreads / device::kWarp;
  const int64_t num_runs = rows * args.runs.heads;
  if (num_runs == 0) return;
  device::Launch<NormKernel>(
      stream,
      {.blocks = (num_runs + kWarpsPerBlock - 1) / kWarpsPerBlock, .threads = NormKernel::kThreads},
      {args, num_runs});
}

}  // namespace wideload::compute::cuda
