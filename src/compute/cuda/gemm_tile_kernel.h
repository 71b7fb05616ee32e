// Products of bf16 rows with packed bf16 weights where rows are many: blocks share what their
// warps read. Their sums are those of gemm_kernels.h, instruction for instruction.
#pragma once

#include "compute/cuda/gemm_fragments.h"

namespace wideload::compute::cuda {

// A block computes a tile: its kColumnWarps x kRowWarps warps have kGroups groups of columns (an
// even number: a gate and its up group are one warp's) and 8 kTiles rows each. A block of 32 k of
// all of it, 1 KiB for each group and 64 bytes for each row, is a stage; three of four are on their
// way. Groups and rows that are not there are read as the last ones and not stored.
//
// A row's 64 bytes are four lanes' 16: eight lanes read two rows, 128 bytes of all banks.
template <int kGroups, int kTiles, int kColumnWarps, int kRowWarps>
struct TileKernel {
  using Args = GemmKernelArgs;
  static constexpr int kThreads = device::kWarp * kColumnWarps * kRowWarps;
  static constexpr int kStages = 4;
  static constexpr int kBlockGroups = kGroups * kColumnWarps;
  static constexpr int kRows = 8 * kTiles * kRowWarps;
  static constexpr int kWeightBytes = kBlockGroups * kBlockBytes;
  static constexpr int kRowBytes = kTileK * 2;
  static constexpr int kStageBytes = kWeightBytes + kRows * kRowBytes;
  static constexpr int64_t kSharedBytes = int64_t{kStages} * kStageBytes;
  static constexpr int kRowPieces = kRowBytes / 16;
  static constexpr int kRowsAtOnce = kThreads / kRowPieces;
  static_assert(kRows % kRowsAtOnce == 0 && kBlockGroups * kBlockPieces % kThreads == 0);

  // What a thread copies from.
  struct Sources {
    const std::byte* weights;  // of the block's first group
    int64_t group_bytes;
    int last_group;  // that there is, of the block's
    const std::byte* rows[kRows / kRowsAtOnce];
    int64_t k;
  };

  static WIDELOAD_DEVICE Sources SourcesOf(const Args& args, const GemmProduct& product,
                                           int64_t first_row, int64_t first_group,
                                           int64_t num_groups) {
    Sources from;
    from.group_bytes = args.shape.group_bytes;
    from.weights = product.weights + first_group * from.group_bytes;
    from.last_group = static_cast<int>(
        num_groups - first_group < kBlockGroups ? num_groups - first_group - 1 : kBlockGroups - 1);
    for (int i = 0; i < kRows / kRowsAtOnce; ++i) {
      const int64_t row = first_row + i * kRowsAtOnce + device::Thread() / kRowPieces;
      from.rows[i] = RowOf(product.x, row < product.rows ? row : product.rows - 1);
    }
    from.k = args.shape.k;
    return from;
  }

  // Puts 32 k of the tile on their way to their stage.
  static WIDELOAD_DEVICE void Fill(const Sources& from, int64_t block) {
    std::byte* const stage = device::SharedMemory() + block % kStages * kStageBytes;
    for (int i = 0; i < kBlockGroups * kBlockPieces / kThreads; ++i) {
      const int piece = i * kThreads + device::Thread();
      const int group = piece / kBlockPieces;
      const int p = piece % kBlockPieces;
      const int there = group < from.last_group ? group : from.last_group;
      device::CopyAsync16(stage + group * kBlockBytes + PlaceOfPiece(p) * 16,
                          from.weights + there * from.group_bytes + block * kBlockBytes + p * 16,
                          16);
    }
    const int piece = device::Thread() % kRowPieces;
    const int64_t first = block * kTileK + piece * 8;
    const int64_t left = from.k - first;
    const int num_bytes = left >= 8 ? 16 : left > 0 ? static_cast<int>(left) * 2 : 0;
    for (int i = 0; i < kRows / kRowsAtOnce; ++i) {
      const int row = i * kRowsAtOnce + device::Thread() / kRowPieces;
      std::byte* const to = stage + kWeightBytes + row * kRowBytes + piece * 16;
      if (IsAligned(from.rows[i]))
        device::CopyAsync16(to, from.rows[i] + 2 * first, num_bytes);
      else
        device::Store(to, LoadEight(from.rows[i], first, 0, from.k));
    }
  }

  // sums += 32 k of the warp's part.
  static WIDELOAD_DEVICE void Multiply(int64_t block, int column_warp, int row_warp,
                                       float (&sums)[kTiles][kGroups][4]) {
    const std::byte* const stage = device::SharedMemory() + block % kStages * kStageBytes;
    BlockFragments weights[kGroups];
    for (int g = 0; g < kGroups; ++g)
      weights[g] = LoadBlock(stage + (column_warp * kGroups + g) * kBlockBytes);
    const std::byte* const rows = stage + kWeightBytes + row_warp * 8 * kTiles * kRowBytes +
                                  device::Lane() / 4 * kRowBytes + device::Lane() % 4 * 16;
    WIDELOAD_UNROLL
    for (int t = 0; t < kTiles; ++t)
      MultiplyBlocks(sums[t], weights, device::Load<Words4>(rows + 8 * t * kRowBytes));
  }

  static WIDELOAD_DEVICE void Store(const Args& args, const GemmProduct& product, int64_t group,
                                    int64_t row, float (&sums)[kGroups][4]) {
    const bool is_gated = args.shape.epilogue == GemmEpilogue::kGated;
    WIDELOAD_UNROLL
    for (int g = 0; g < kGroups; g += 2) {
      const int64_t unit = group + g;
      if (is_gated) {
        float pair[2][4];
        for (int i = 0; i < 8; ++i) pair[i / 4][i % 4] = sums[g + i / 4][i % 4];
        if (unit / 2 < args.num_units) StoreUnit(args, product, unit / 2, row, pair);
        continue;
      }
      for (int h = 0; h < 2; ++h) {
        float one[1][4];
        for (int i = 0; i < 4; ++i) one[0][i] = sums[g + h][i];
        if (unit + h < args.num_units) StoreUnit(args, product, unit + h, row, one);
      }
    }
  }

  static WIDELOAD_DEVICE void Run(const Args& args) {
    const auto [product, first_row] = RowsOfBlock(args, kRows);
    const int64_t groups_of_unit = args.shape.epilogue == GemmEpilogue::kGated ? 2 : 1;
    const int64_t first_group = device::BlockY() * kBlockGroups;
    const Sources from =
        SourcesOf(args, product, first_row, first_group, args.num_units * groups_of_unit);
    const int64_t num_blocks = (args.shape.k + kTileK - 1) / kTileK;
    for (int64_t block = 0; block < kStages - 1; ++block) {
      if (block < num_blocks) Fill(from, block);
      device::CommitCopies();
    }
    const int column_warp = device::Warp() % kColumnWarps;
    const int row_warp = device::Warp() / kColumnWarps;
    float sums[kTiles][kGroups][4] = {};
    for (int64_t block = 0; block < num_blocks; ++block) {
      // Every thread's copies of this block have arrived, and all have read the stage that is
      // filled.
      device::WaitCopies<kStages - 2>();
      device::SyncBlock();
      const int64_t ahead = block + kStages - 1;
      if (ahead < num_blocks) Fill(from, ahead);
      device::CommitCopies();
      Multiply(block, column_warp, row_warp, sums);
    }
    WIDELOAD_UNROLL
    for (int t = 0; t < kTiles; ++t)
      Store(args, product, first_group + column_warp * kGroups,
            first_row + 8 * (row_warp * kTiles + t), sums[t]);
  }
};

}  // namespace wideload::compute::cuda
