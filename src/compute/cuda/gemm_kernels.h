// Products of bf16 rows with packed bf16 weights: which kernel computes them. No choice changes a
// bit.
#pragma once

#include "compute/cuda/gemm_few_rows_kernel.h"
#include "compute/cuda/gemm_tile_kernel.h"

namespace wideload::compute::cuda {

template <int kGroups, int kTiles>
void LaunchFewRows(device::Stream& stream, const GemmCall& call, GemmKernelArgs args) {
  using Kernel = FewRowsKernel<kGroups, kTiles>;
  const int64_t num_tiles = CutRows(stream, call, Kernel::kRows, args);
  // Warps share nothing: blocks are as small as it takes for every multiprocessor to have one.
  const int64_t num_multiprocessors = stream.device().properties().num_multiprocessors;
  const int64_t warps = std::clamp<int64_t>(args.num_units * num_tiles / num_multiprocessors, 1,
                                            Kernel::kThreads / device::kWarp);
  device::Launch<Kernel>(stream,
                         {.blocks = num_tiles,
                          .blocks_y = (args.num_units + warps - 1) / warps,
                          .threads = static_cast<int>(warps) * device::kWarp,
                          .shared_bytes = warps * Kernel::kSharedBytesOfWarp},
                         args);
}

template <class Kernel>
void LaunchTiles(device::Stream& stream, const GemmCall& call, int64_t num_groups,
                 GemmKernelArgs args) {
  const int64_t num_tiles = CutRows(stream, call, Kernel::kRows, args);
  device::Launch<Kernel>(
      stream,
      {.blocks = num_tiles,
       .blocks_y = (num_groups + Kernel::kBlockGroups - 1) / Kernel::kBlockGroups,
       .threads = Kernel::kThreads,
       .shared_bytes = Kernel::kSharedBytes},
      args);
}

// 128 x 128 has the most products for a byte of shared memory, and the others more blocks.
// Registers and shared memory of compute capability 9.0:
using LargeTile = TileKernel<4, 8, 2, 2>;   // 128 columns x 128 rows; 246, 64 KiB
using MiddleTile = TileKernel<2, 8, 4, 1>;  // 128 columns x 64 rows; 128, 48 KiB
using NarrowTile = TileKernel<2, 2, 1, 4>;  // 32 columns x 64 rows; 64, 24 KiB

// Rows that tiles of this many compute, those that are not there included.
inline int64_t PaddedRows(const GemmCall& call, int64_t rows_per_tile) {
  int64_t rows = 0;
  for (const GemmProduct& product : call.products)
    rows += (product.rows + rows_per_tile - 1) / rows_per_tile * rows_per_tile;
  return rows;
}

// Takes the largest tiles that give every multiprocessor one and do not compute a quarter more
// rows.
inline void LaunchManyRows(device::Stream& stream, const GemmCall& call,
                           const GemmKernelArgs& args) {
  const int64_t num_groups = args.num_units * (call.shape.epilogue == GemmEpilogue::kGated ? 2 : 1);
  const int64_t num_multiprocessors = stream.device().properties().num_multiprocessors;
  const int64_t columns = (num_groups + LargeTile::kBlockGroups - 1) / LargeTile::kBlockGroups;
  const int64_t large_rows = PaddedRows(call, LargeTile::kRows);
  const int64_t middle_rows = PaddedRows(call, MiddleTile::kRows);
  if (large_rows / LargeTile::kRows * columns >= num_multiprocessors &&
      4 * large_rows <= 5 * middle_rows)
    return LaunchTiles<LargeTile>(stream, call, num_groups, args);
  if (middle_rows / MiddleTile::kRows * columns >= num_multiprocessors)
    return LaunchTiles<MiddleTile>(stream, call, num_groups, args);
  LaunchTiles<NarrowTile>(stream, call, num_groups, args);
}

template <int kGroups>
void GemmBf16Of(device::Stream& stream, const GemmCall& call, const GemmKernelArgs& args) {
  const int64_t most_rows = MostRows(call);
  if (most_rows <= 8) return LaunchFewRows<kGroups, 1>(stream, call, args);
  if (most_rows <= 16) return LaunchFewRows<kGroups, 2>(stream, call, args);
  if (most_rows <= 32) return LaunchFewRows<kGroups, 4>(stream, call, args);
  LaunchManyRows(stream, call, args);
}

inline void GemmBf16(device::Stream& stream, const GemmCall& call) {
  if (MostRows(call) == 0) return;
  GemmKernelArgs args;
  args.shape = call.shape;
  args.num_units = (call.shape.n + kGroupColumns - 1) / kGroupColumns;
  if (call.shape.epilogue == GemmEpilogue::kGated)
    GemmBf16Of<2>(stream, call, args);
  else
    GemmBf16Of<1>(stream, call, args);
}

}  // namespace wideload::compute::cuda
