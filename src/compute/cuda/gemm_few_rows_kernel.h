// Products of bf16 rows with packed bf16 weights where rows are few: the time is that of reading
// the weights.
#pragma once

#include "compute/cuda/gemm_fragments.h"

namespace wideload::compute::cuda {

// A warp computes one unit of 8 kTiles rows: a group of columns, or (kGroups 2) a gate and an up
// group. Weights come through a ring of the warp's own, with no barrier of the block: 15 KiB of
// them are on their way, so that one warp on each of 132 multiprocessors reads at the memory's
// rate (3.35 TB/s x 600 ns). Rows of x come through L1, which the warps of a multiprocessor share,
// 16 bytes a lane and one block of k ahead. Rows that are not there are read as the last one and
// not stored. Compute capability 9.0, kTiles 1, 2, 4: 48, 64, 96 registers, gated 70, 94, 156;
// 16 KiB of shared memory for a warp.
template <int kGroups, int kTiles>
struct FewRowsKernel {
  using Args = GemmKernelArgs;
  static constexpr int kThreads = 128;
  static constexpr int kStages = 16 / kGroups;
  static constexpr int kStageBytes = kGroups * kBlockBytes;
  static constexpr int64_t kSharedBytesOfWarp = kStages * kStageBytes;
  static constexpr int64_t kRows = 8 * kTiles;

  // Puts 32 k of the unit's groups on their way to a stage of the ring.
  static WIDELOAD_DEVICE void Fill(std::byte* ring, const std::byte* weights, int64_t group_bytes,
                                   int64_t block) {
    std::byte* const stage = ring + block % kStages * kStageBytes;
    for (int g = 0; g < kGroups; ++g) {
      const std::byte* from = weights + g * group_bytes + block * kBlockBytes;
      for (int p = device::Lane(); p < kBlockPieces; p += device::kWarp)
        device::CopyAsync16(stage + g * kBlockBytes + PlaceOfPiece(p) * 16, from + p * 16, 16);
    }
  }

  static WIDELOAD_DEVICE void Run(const Args& args) {
    const int64_t unit = device::BlockY() * (device::NumThreads() / device::kWarp) + device::Warp();
    if (unit >= args.num_units) return;
    const auto [product, first_row] = RowsOfBlock(args, kRows);
    const int64_t group_bytes = args.shape.group_bytes;
    const std::byte* const weights = product.weights + unit * kGroups * group_bytes;
    std::byte* const ring = device::SharedMemory() + device::Warp() * kSharedBytesOfWarp;
    const int64_t k = args.shape.k;
    const int64_t num_blocks = (k + kTileK - 1) / kTileK;
    for (int64_t block = 0; block < kStages - 1; ++block) {
      if (block < num_blocks) Fill(ring, weights, group_bytes, block);
      device::CommitCopies();
    }

    const std::byte* rows[kTiles];
    int64_t vector_k[kTiles];
    Words4 x[kTiles];
    const int64_t first_k = device::Lane() % 4 * 8;
    for (int t = 0; t < kTiles; ++t) {
      const int64_t row = first_row + 8 * t + device::Lane() / 4;
      rows[t] = RowOf(product.x, row < product.rows ? row : product.rows - 1);
      vector_k[t] = IsAligned(rows[t]) ? k : 0;
      x[t] = LoadEight(rows[t], first_k, vector_k[t], k);
    }
    float sums[kTiles][kGroups][4] = {};
    for (int64_t block = 0; block < num_blocks; ++block) {
      // Every lane's copies of this block have arrived, and all have read the stage that is filled.
      device::WaitCopies<kStages - 2>();
      device::SyncWarp();
      const int64_t ahead = block + kStages - 1;
      if (ahead < num_blocks) Fill(ring, weights, group_bytes, ahead);
      device::CommitCopies();
      Words4 next[kTiles];
      for (int t = 0; t < kTiles; ++t)
        next[t] = LoadEight(rows[t], first_k + (block + 1) * kTileK, vector_k[t], k);
      const std::byte* const stage = ring + block % kStages * kStageBytes;
      BlockFragments fragments[kGroups];
      for (int g = 0; g < kGroups; ++g) fragments[g] = LoadBlock(stage + g * kBlockBytes);
      for (int t = 0; t < kTiles; ++t) {
        MultiplyBlocks(sums[t], fragments, x[t]);
        x[t] = next[t];
      }
    }
    for (int t = 0; t < kTiles; ++t) StoreUnit(args, product, unit, first_row + 8 * t, sums[t]);
  }
};

}  // namespace wideload::compute::cuda
