// Block-scaled weights, which are widened to fp32: how each format is read, and dot products of few
// rows, in registers; for more rows see panel_impl.h. A block's k run in order into a partial sum
// that its scale multiplies, blocks ascending: the same either way.
//
// Blocking: tiles as in gemm_impl.h, but sums and the partial sums of a block and the widened
// values of a column, which are made where they are used, share the registers, so tiles are smaller
// (kScaled... of the vec headers), and a row's k are widened kWidenedK at a time, 512 bytes of
// each, which stay in L1. Included after gemm_impl.h; internal to the including translation unit.
#pragma once

#include "compute/cpu/gemm_impl.h"

namespace wideload::compute {
namespace {

// What a packed group of each format says of its blocks: where the scales of block b stand, its
// lines, and the sixteen columns of a line, each divided by kUnit. Both may have an order of
// columns of their own; InOrder brings sums into that of y.

struct Fp8Blocks {
  static constexpr int64_t kBlockK = kFp8BlockK;
  static constexpr int64_t kLineK = 4;
  static constexpr bool kHasScales = true;
  static constexpr int64_t kStride = kScaleLineBytes + kFp8BlockK * kGroupColumns;

  static const std::byte* Lines(const std::byte* group, int64_t b) {
    return group + b * kStride + kScaleLineBytes;
  }
  static Vec Scales(const std::byte* group, int64_t b) {
    return Load(reinterpret_cast<const float*>(group + b * kStride));
  }
  static constexpr float kUnit = kFp8Unit;
  static Fp8Columns Columns(const std::byte* line) { return Fp8Columns(line); }
  static Vec InOrder(Vec sum) { return sum; }
};

// Lines of 4-bit codes; a line of scales stands before kPerLine blocks.
template <int64_t kPerLine>
struct FourBitBlocks {
  static constexpr int64_t kBlockK = kFourBitBlockK;
  static constexpr int64_t kLineK = 8;
  static constexpr bool kHasScales = true;
  static constexpr float kUnit = 1;
  static constexpr int64_t kStride = kScaleLineBytes + kPerLine * kFourBitBlockBytes;

  static const std::byte* Lines(const std::byte* group, int64_t b) {
    return group + b / kPerLine * kStride + kScaleLineBytes + b % kPerLine * kFourBitBlockBytes;
  }
  static const std::byte* ScaleBytes(const std::byte* group, int64_t b) {
    return group + b / kPerLine * kStride + b % kPerLine * (kScaleLineBytes / kPerLine);
  }
  static Vec InOrder(Vec sum) { return FourBitSums(sum); }
};

struct Int4Blocks : FourBitBlocks<kInt4ScaleLineK / kFourBitBlockK> {
  const FourBitTable table = Int4Values();

  static Vec Scales(const std::byte* group, int64_t b) {
    return LoadBf16Scales(reinterpret_cast<const uint16_t*>(ScaleBytes(group, b)));
  }
  FourBitColumns Columns(const std::byte* line) const { return FourBitColumns(line, table); }
};

struct Mxfp4Blocks : FourBitBlocks<kMxfp4ScaleLineK / kFourBitBlockK> {
  const FourBitTable table = Mxfp4Values();

  static Vec Scales(const std::byte* group, int64_t b) {
    return LoadExponents(ScaleBytes(group, b));
  }
  FourBitColumns Columns(const std::byte* line) const { return FourBitColumns(line, table); }
};

// A block's sum of values as they are.
template <class Blocks>
inline Vec InUnits(Vec partial) {
  return Blocks::kUnit == 1 ? partial : Mul(partial, Set1(Blocks::kUnit));
}

constexpr int64_t kWidenedK = 128;  // k widened at once; a multiple of every block

// A row's k from `begin` on in fp32, zeros behind the last up to sixteen lanes, of which a line
// needs at most three.
inline void WidenRow(const InRows& x, int64_t row, int64_t begin, int64_t count, float* wide) {
  const uint16_t* from = Row<uint16_t>(x, row) + begin;
  for (int64_t j = 0; j < count; j += kLanes) Store(wide + j, LoadUpTo(from + j, count - j));
}

template <class Blocks>
struct ScaledDot {
  template <int R, int G>
  // NOLINTNEXTLINE(readability-function-size): loops over a register tile in loops over k
  static void Run(const GemmArgs& args, int64_t first_row, const std::byte* weights,
                  const Ahead& ahead, Sums<R, G>& result) {
    const Blocks blocks;
    const int64_t group = args.group_bytes;
    const int64_t k = args.k;
    float wide[R][kWidenedK];
    Sums<R, G> sums;
    Clear(sums);
    for (int64_t begin = 0; begin < k; begin += kWidenedK) {
      for (int r = 0; r < R; ++r) {
        WidenRow(args.x, first_row + r, begin, Least(kWidenedK, k - begin), wide[r]);
      }
      const int64_t end = Least(k, begin + kWidenedK);
      for (int64_t j = begin; j < end; j += Blocks::kBlockK) {
        const int64_t b = j / Blocks::kBlockK;
        Sums<R, G> partial;
        Clear(partial);
        const std::byte* lines = Blocks::Lines(weights, b);
        const int64_t block_end = Least(k, j + Blocks::kBlockK);
        for (int64_t i = j; i < block_end; i += Blocks::kLineK, lines += kLineBytes) {
          const Line<G> line(lines, group, ahead);
          AddLine(blocks, wide, i - begin, line, partial);
        }
        WIDELOAD_UNROLL
        for (int g = 0; g < G; ++g) {
          const Vec scales = Blocks::Scales(weights + g * group, b);
          WIDELOAD_UNROLL
          for (int r = 0; r < R; ++r) {
            sums.at[r][g] = Fma(InUnits<Blocks>(partial.at[r][g]), scales, sums.at[r][g]);
          }
        }
      }
    }
    WIDELOAD_UNROLL
    for (int g = 0; g < G; ++g) {
      WIDELOAD_UNROLL
      for (int r = 0; r < R; ++r) result.at[r][g] = Blocks::InOrder(sums.at[r][g]);
    }
  }

 private:
  // The same line of each group, and what is fetched meanwhile.
  template <int G>
  struct Line {
    Line(const std::byte* first, int64_t group_bytes, const Ahead& ahead)
        : at(first), ahead_at(ahead.Of(first)), group(group_bytes) {}
    const std::byte* at;
    const std::byte* ahead_at;
    int64_t group;
  };

  template <int R, int G>
  [[gnu::always_inline]] static void AddLine(const Blocks& blocks,
                                             const float (&wide)[R][kWidenedK], int64_t at,
                                             const Line<G>& line, Sums<R, G>& partial) {
    WIDELOAD_UNROLL
    for (int g = 0; g < G; ++g) {
      PrefetchLine(line.ahead_at + g * line.group);
      const auto columns = blocks.Columns(line.at + g * line.group);
      WIDELOAD_UNROLL
      for (int64_t i = 0; i < Blocks::kLineK; ++i) {
        const Vec column = columns.At(i);
        WIDELOAD_UNROLL
        for (int r = 0; r < R; ++r) {
          partial.at[r][g] = Fma(Set1(wide[r][at + i]), column, partial.at[r][g]);
        }
      }
    }
  }
};

// Groups one after the other, where registers hold the sums of one only, for epilogues that take
// two.
template <class Dot>
struct OneByOne {
  template <int R, int G>
  static void Run(const GemmArgs& args, int64_t first_row, const std::byte* weights,
                  const Ahead& ahead, Sums<R, G>& result) {
    for (int g = 0; g < G; ++g, weights += args.group_bytes) {
      const bool is_last = g == G - 1;
      const std::byte* next = is_last ? ahead.next() : weights + args.group_bytes;
      Sums<R, 1> sums;
      Dot::Run(args, first_row, weights, Ahead(args, weights, next, 1), sums);
      for (int r = 0; r < R; ++r) result.at[r][g] = sums.at[r][0];
    }
  }
};

}  // namespace
}  // namespace wideload::compute
