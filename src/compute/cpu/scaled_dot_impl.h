// Dot products with block-scaled weights, which are widened to fp32: for few rows in registers, for
// more once into a panel that all rows of a task share. A block's k run in order into a partial sum
// that its scale multiplies, blocks ascending: the same either way.
// Included after gemm_impl.h; internal to the including translation unit.
#pragma once

#include "compute/cpu/gemm_impl.h"

namespace wideload::compute {
namespace {

// What a packed group of each format says of its blocks: where the scales of block b stand, its
// lines, and the sixteen columns of a line. Values come divided by unit().

struct Fp8Blocks {
  static constexpr int64_t kBlockK = kFp8BlockK;
  static constexpr int64_t kLineK = 4;
  static constexpr int64_t kStride = kScaleLineBytes + kFp8BlockK * kGroupColumns;

  static const std::byte* Lines(const std::byte* group, int64_t b) {
    return group + b * kStride + kScaleLineBytes;
  }
  static Vec Scales(const std::byte* group, int64_t b) {
    return Load(reinterpret_cast<const float*>(group + b * kStride));
  }
  static float unit() { return kFp8Unit; }
  static void Widen(const std::byte* line, Vec* out) { WidenFp8(line, out); }
};

// Lines of 4-bit codes; a line of scales stands before kPerLine blocks.
template <int64_t kPerLine>
struct FourBitBlocks {
  static constexpr int64_t kBlockK = kFourBitBlockK;
  static constexpr int64_t kLineK = 8;
  static constexpr int64_t kStride = kScaleLineBytes + kPerLine * kFourBitBlockBytes;

  static const std::byte* Lines(const std::byte* group, int64_t b) {
    return group + b / kPerLine * kStride + kScaleLineBytes + b % kPerLine * kFourBitBlockBytes;
  }
  static const std::byte* ScaleBytes(const std::byte* group, int64_t b) {
    return group + b / kPerLine * kStride + b % kPerLine * (kScaleLineBytes / kPerLine);
  }
};

struct Int4Blocks : FourBitBlocks<kInt4ScaleLineK / kFourBitBlockK> {
  const FourBitTable table = Int4Values();

  static Vec Scales(const std::byte* group, int64_t b) {
    return LoadBf16(reinterpret_cast<const uint16_t*>(ScaleBytes(group, b)));
  }
  float unit() const { return table.unit; }
  void Widen(const std::byte* line, Vec* out) const { WidenFourBits(line, table, out); }
};

struct Mxfp4Blocks : FourBitBlocks<kMxfp4ScaleLineK / kFourBitBlockK> {
  const FourBitTable table = Mxfp4Values();

  static Vec Scales(const std::byte* group, int64_t b) {
    return LoadExponents(ScaleBytes(group, b));
  }
  float unit() const { return table.unit; }
  void Widen(const std::byte* line, Vec* out) const { WidenFourBits(line, table, out); }
};

constexpr int64_t kWidenedK = 128;  // k widened at once; a multiple of every block

// Rows' k from `begin` on in fp32, zeros behind the last up to sixteen lanes, of which a line needs
// at most three.
template <int R>
void WidenRows(const InRows& x, int64_t first_row, int64_t begin, int64_t count,
               float (&wide)[R][kWidenedK]) {
  for (int r = 0; r < R; ++r) {
    const uint16_t* row = Row<uint16_t>(x, first_row + r) + begin;
    for (int64_t j = 0; j < count; j += kLanes) Store(wide[r] + j, LoadUpTo(row + j, count - j));
  }
}

template <class Blocks>
struct ScaledDot {
  template <int R, int G>
  static void Run(const GemmArgs& args, int64_t first_row, const std::byte* weights,
                  Sums<R, G>& result) {
    const Blocks blocks;
    const Vec unit = Set1(blocks.unit());
    const int64_t group = args.group_bytes;
    const int64_t k = args.k;
    float wide[R][kWidenedK];
    Sums<R, G> sums;
    Clear(sums);
    for (int64_t begin = 0; begin < k; begin += kWidenedK) {
      WidenRows(args.x, first_row, begin, Least(kWidenedK, k - begin), wide);
      const int64_t end = Least(k, begin + kWidenedK);
      for (int64_t j = begin; j < end; j += Blocks::kBlockK) {
        const int64_t b = j / Blocks::kBlockK;
        Sums<R, G> partial;
        Clear(partial);
        const std::byte* lines = Blocks::Lines(weights, b);
        const int64_t block_end = Least(k, j + Blocks::kBlockK);
        for (int64_t i = j; i < block_end; i += Blocks::kLineK, lines += kLineBytes) {
          AddLine(blocks, wide, i - begin, lines, group, partial);
        }
        WIDELOAD_UNROLL
        for (int g = 0; g < G; ++g) {
          const Vec scales = Blocks::Scales(weights + g * group, b);
          WIDELOAD_UNROLL
          for (int r = 0; r < R; ++r) {
            sums.at[r][g] = Fma(Mul(partial.at[r][g], unit), scales, sums.at[r][g]);
          }
        }
      }
    }
    result = sums;
  }

 private:
  template <int R, int G>
  [[gnu::always_inline]] static void AddLine(const Blocks& blocks,
                                             const float (&wide)[R][kWidenedK], int64_t at,
                                             const std::byte* lines, int64_t group,
                                             Sums<R, G>& partial) {
    WIDELOAD_UNROLL
    for (int g = 0; g < G; ++g) {
      Vec columns[Blocks::kLineK];
      PrefetchLine(lines + g * group + kPrefetchBytes);
      blocks.Widen(lines + g * group, columns);
      WIDELOAD_UNROLL
      for (int64_t i = 0; i < Blocks::kLineK; ++i) {
        WIDELOAD_UNROLL
        for (int r = 0; r < R; ++r) {
          partial.at[r][g] = Fma(Set1(wide[r][at + i]), columns[i], partial.at[r][g]);
        }
      }
    }
  }
};

// Up to kWidenedK k of G groups in fp32, and the scales of their blocks.
template <class Blocks, int G>
struct WeightPanel {
  static constexpr int64_t kBlocks = kWidenedK / Blocks::kBlockK;
  int64_t count;  // k, whole lines
  float weights[G][kWidenedK * kGroupColumns];
  Vec scales[G][kBlocks];

  void Fill(const Blocks& blocks, const std::byte* group, int64_t group_bytes, int64_t begin,
            int64_t end) {
    count = (end - begin + Blocks::kLineK - 1) / Blocks::kLineK * Blocks::kLineK;
    for (int g = 0; g < G; ++g, group += group_bytes) {
      float* out = weights[g];
      for (int64_t j = begin; j < end; j += Blocks::kBlockK) {
        const int64_t b = j / Blocks::kBlockK;
        scales[g][b - begin / Blocks::kBlockK] = Blocks::Scales(group, b);
        const std::byte* line = Blocks::Lines(group, b);
        const int64_t block_end = Least(end, j + Blocks::kBlockK);
        for (int64_t i = j; i < block_end; i += Blocks::kLineK, line += kLineBytes) {
          Vec columns[Blocks::kLineK];
          PrefetchLine(line + kPrefetchBytes);
          blocks.Widen(line, columns);
          WIDELOAD_UNROLL
          for (int64_t c = 0; c < Blocks::kLineK; ++c, out += kGroupColumns) Store(out, columns[c]);
        }
      }
    }
  }

  // Adds the panel times R rows to their sums.
  template <int R>
  void AddTo(const float (&wide)[R][kWidenedK], Vec unit, Vec (*sums)[G]) const {
    for (int64_t b = 0; b * Blocks::kBlockK < count; ++b) {
      Sums<R, G> partial;
      Clear(partial);
      const int64_t end = Least(count, (b + 1) * Blocks::kBlockK);
      for (int64_t j = b * Blocks::kBlockK; j < end; ++j) {
        Vec columns[G];
        WIDELOAD_UNROLL
        for (int g = 0; g < G; ++g) columns[g] = Load(weights[g] + j * kGroupColumns);
        WIDELOAD_UNROLL
        for (int r = 0; r < R; ++r) {
          const Vec a = Set1(wide[r][j]);
          WIDELOAD_UNROLL
          for (int g = 0; g < G; ++g) partial.at[r][g] = Fma(a, columns[g], partial.at[r][g]);
        }
      }
      for (int r = 0; r < R; ++r) {
        WIDELOAD_UNROLL
        for (int g = 0; g < G; ++g) {
          sums[r][g] = Fma(Mul(partial.at[r][g], unit), scales[g][b], sums[r][g]);
        }
      }
    }
  }
};

// AddTo for `rows` <= R rows from `first_row` on.
template <class Blocks, int R, int G>
void AddPanel(const WeightPanel<Blocks, G>& panel, const GemmArgs& args, int64_t first_row,
              int64_t rows, int64_t begin, Vec unit, Vec (*sums)[G]) {
  if (rows == R) {
    float wide[R][kWidenedK];
    WidenRows(args.x, first_row, begin, Least(kWidenedK, args.k - begin), wide);
    panel.template AddTo<R>(wide, unit, sums);
  } else if constexpr (R > 1) {
    AddPanel<Blocks, R - 1, G>(panel, args, first_row, rows, begin, unit, sums);
  }
}

// All rows of a tile for G groups of weights.
template <class Blocks, int R, int G>
void RunPanels(const GemmArgs& args, const GemmTile& tile, int64_t group) {
  const Blocks blocks;
  const Vec unit = Set1(blocks.unit());
  const int64_t num_rows = tile.row_end - tile.row_begin;
  const int64_t num_tiles = (num_rows + R - 1) / R;
  WeightPanel<Blocks, G> panel;
  Vec sums[kTaskRows][G];
  for (int64_t r = 0; r < num_rows; ++r) {
    for (int g = 0; g < G; ++g) sums[r][g] = Zero();
  }
  for (int64_t begin = 0; begin < args.k; begin += kWidenedK) {
    panel.Fill(blocks, args.weights + group * args.group_bytes, args.group_bytes, begin,
               Least(args.k, begin + kWidenedK));
    // Tiles of nearly equal height.
    for (int64_t t = 0; t < num_tiles; ++t) {
      const int64_t first = num_rows * t / num_tiles;
      const int64_t rows = num_rows * (t + 1) / num_tiles - first;
      AddPanel<Blocks, R, G>(panel, args, tile.row_begin + first, rows, begin, unit, sums + first);
    }
  }
  for (int64_t r = 0; r < num_rows; ++r) {
    Sums<1, G> row;
    for (int g = 0; g < G; ++g) row.at[0][g] = sums[r][g];
    Finish(args, tile.row_begin + r, group, row);
  }
}

// Groups of weights [group, end) in panels of G, then of G / 2, ... as TileColumns.
template <class Blocks, int R, int G>
void RunPanelsOf(const GemmArgs& args, const GemmTile& tile, int64_t group, int64_t end) {
  for (; group + G <= end; group += G) RunPanels<Blocks, R, G>(args, tile, group);
  if constexpr (G > 1) {
    if (group < end) RunPanelsOf<Blocks, R, G / 2>(args, tile, group, end);
  }
}

template <class Blocks>
void RunScaledGemm(const GemmArgs& args, const GemmTile& tile) {
  const int64_t per_group = args.epilogue == GemmEpilogue::kGated ? 2 : 1;
  const int64_t begin = tile.group_begin * per_group;
  const int64_t end = tile.group_end * per_group;
  const int64_t rows = tile.row_end - tile.row_begin;
  if (rows <= kScaledStreamRows) {
    TileColumns<ScaledDot<Blocks>, kScaledStreamRows, kScaledStreamGroups>(args, tile, begin, end);
  } else if (rows <= kScaledTileRows) {
    TileColumns<ScaledDot<Blocks>, kScaledTileRows, kScaledTileGroups>(args, tile, begin, end);
  } else {
    RunPanelsOf<Blocks, kPanelRows, kPanelGroups>(args, tile, begin, end);
  }
}

}  // namespace
}  // namespace wideload::compute
