// Products of many rows. Weights are widened to fp32 once for all rows of a task, into a panel of
// kWidenedK k and a few column groups that stays in L1, and rows once for all its columns; the sums
// wait in L2 while panels pass. A sum is the same chain over k as in the tiles of few rows.
//
// Blocking: a panel takes 8 KiB a group, so kPanelGroups of them and the kPanelRows rows of a tile
// (512 bytes each) fit L1 with room for what is prefetched; kPanelRows x kPanelGroups sums, the
// panel's lines and one value of a row fill the registers, and hide the latency of fused
// multiply-adds (4 cycles, 2 a cycle) more than twice. Widening costs one operation and one store
// for each line against as many multiply-adds as the task has rows.
// Included after scaled_dot_impl.h; internal to the including translation unit.
#pragma once

#include "compute/cpu/scaled_dot_impl.h"

namespace wideload::compute {
namespace {

// Two k of sixteen columns.
class PairColumns {
 public:
  explicit PairColumns(const std::byte* line)
      : first_(LoadPairFirst(reinterpret_cast<const uint16_t*>(line))),
        second_(LoadPairSecond(reinterpret_cast<const uint16_t*>(line))) {}
  Vec At(int64_t k) const { return k == 0 ? first_ : second_; }

 private:
  Vec first_;
  Vec second_;
};

// bf16 in the terms of block-scaled weights, without scales: one chain over all k.
struct Bf16Blocks {
  static constexpr int64_t kBlockK = kWidenedK;
  static constexpr int64_t kLineK = 2;
  static constexpr bool kHasScales = false;

  static const std::byte* Lines(const std::byte* group, int64_t b) {
    return group + b * kBlockK * kGroupColumns * 2;
  }
  static PairColumns Columns(const std::byte* line) { return PairColumns(line); }
  static Vec InOrder(Vec sum) { return sum; }
};

// Column groups whose sums wait at once: 192 KiB in L2. Widening a value of a row takes about as
// long as one multiply-add of vectors (it comes from L2 or beyond, where rows lie apart), and each
// group has one for it: with 8 groups it was a tenth of the time.
constexpr int64_t kSumGroups = 32;

// What a task keeps at hand.
struct PanelScratch {
  alignas(64) float rows[kTaskRows][kWidenedK];
  alignas(64) float weights[kWidenedK * kPanelGroups * kGroupColumns];  // [k][groups][16]
  Vec scales[kWidenedK / kFourBitBlockK][kPanelGroups];
  Vec sums[kSumGroups][kTaskRows];
};

// Where the panel after this one lies, and how far apart is what is fetched of it for each two k of
// this one.
template <int G>
struct NextPanel {
  const std::byte* lines[G];
  int64_t step_bytes;
};

// The panel of these groups that begins at a k; null: not known, so nothing is fetched that is not
// there.
template <class Blocks, int G>
NextPanel<G> PanelAt(const GemmArgs& args, const std::byte* groups, int64_t begin) {
  if (groups == nullptr) groups = args.weights;
  NextPanel<G> next;
  for (int g = 0; g < G; ++g) {
    next.lines[g] = Blocks::Lines(groups + g * args.group_bytes, begin / Blocks::kBlockK);
  }
  next.step_bytes = 2 * kLineBytes / Blocks::kLineK;
  return next;
}

// Tile t of n tiles of rows fetches an n-th of the next panel. Were it all fetched by the first
// one, more would be under way than the processor can keep, and memory would rest during the
// others.
template <class Blocks, int G>
NextPanel<G> PartOf(const NextPanel<G>& whole, int64_t t, int64_t n) {
  constexpr int64_t kPanelBytes = kWidenedK * kLineBytes / Blocks::kLineK;
  NextPanel<G> part;
  for (int g = 0; g < G; ++g) part.lines[g] = whole.lines[g] + kPanelBytes * t / n;
  part.step_bytes = (whole.step_bytes + n - 1) / n;
  return part;
}

// Widens k of [begin, end) of G groups; returns how many k stand there, whole lines.
template <class Blocks, int G>
int64_t FillPanel(const Blocks& blocks, const GemmArgs& args, int64_t group, int64_t begin,
                  int64_t end, PanelScratch& scratch) {
  for (int g = 0; g < G; ++g) {
    const std::byte* weights = args.weights + (group + g) * args.group_bytes;
    float* out = scratch.weights + g * kGroupColumns;
    for (int64_t j = begin; j < end; j += Blocks::kBlockK) {
      const int64_t b = j / Blocks::kBlockK;
      if constexpr (Blocks::kHasScales) {
        scratch.scales[b - begin / Blocks::kBlockK][g] = Blocks::Scales(weights, b);
      }
      const std::byte* line = Blocks::Lines(weights, b);
      const int64_t block_end = Least(end, j + Blocks::kBlockK);
      for (int64_t i = j; i < block_end; i += Blocks::kLineK, line += kLineBytes) {
        const auto columns = blocks.Columns(line);
        WIDELOAD_UNROLL
        for (int64_t c = 0; c < Blocks::kLineK; ++c, out += G * kGroupColumns) {
          Store(out, columns.At(c));
        }
      }
    }
  }
  return (end - begin + Blocks::kLineK - 1) / Blocks::kLineK * Blocks::kLineK;
}

// k of a panel, an even number.
struct PanelRange {
  int64_t begin;
  int64_t end;
};

// sums += rows of the tile times the range of the panel.
template <class Blocks, int R, int G>
[[gnu::always_inline]] inline void AddPanelLines(const float* rows, const float* weights,
                                                 PanelRange range, const NextPanel<G>& next,
                                                 Sums<R, G>& sums) {
  const float* w = weights + range.begin * G * kGroupColumns;
  int64_t ahead = range.begin / 2 * next.step_bytes;
  for (int64_t j = range.begin; j < range.end; j += 2, ahead += next.step_bytes) {
    WIDELOAD_UNROLL
    for (int g = 0; g < G; ++g) PrefetchLine(next.lines[g] + ahead);
    WIDELOAD_UNROLL
    for (int64_t i = 0; i < 2; ++i, w += G * kGroupColumns) {
      Vec columns[G];
      WIDELOAD_UNROLL
      for (int g = 0; g < G; ++g) columns[g] = Load(w + g * kGroupColumns);
      WIDELOAD_UNROLL
      for (int r = 0; r < R; ++r) {
        const Vec a = Set1(rows[r * kWidenedK + j + i]);
        WIDELOAD_UNROLL
        for (int g = 0; g < G; ++g) {
          sums.at[r][g] = Fma(a, columns[g], sums.at[r][g]);
          KeepInRegister(sums.at[r][g]);
        }
      }
    }
  }
}

// Which sums of the scratch a tile adds to.
struct PanelTile {
  int64_t first_row;
  int64_t rows;
  int64_t group;
};

// Adds `count` k of the panel times R rows to their sums of G groups.
template <class Blocks, int R, int G>
void AddPanelTile(int64_t count, const PanelTile& tile, const NextPanel<G>& next,
                  PanelScratch& scratch) {
  const int64_t row = tile.first_row;
  const int64_t group = tile.group;
  const float* rows = scratch.rows[row];
  Sums<R, G> sums;
  if constexpr (!Blocks::kHasScales) {
    WIDELOAD_UNROLL
    for (int r = 0; r < R; ++r) {
      WIDELOAD_UNROLL
      for (int g = 0; g < G; ++g) sums.at[r][g] = scratch.sums[group + g][row + r];
    }
    AddPanelLines<Blocks>(rows, scratch.weights, {0, count}, next, sums);
    WIDELOAD_UNROLL
    for (int r = 0; r < R; ++r) {
      WIDELOAD_UNROLL
      for (int g = 0; g < G; ++g) scratch.sums[group + g][row + r] = sums.at[r][g];
    }
  } else {
    for (int64_t b = 0; b * Blocks::kBlockK < count; ++b) {
      Clear(sums);
      const PanelRange block = {b * Blocks::kBlockK, Least(count, (b + 1) * Blocks::kBlockK)};
      AddPanelLines<Blocks>(rows, scratch.weights, block, next, sums);
      WIDELOAD_UNROLL
      for (int r = 0; r < R; ++r) {
        WIDELOAD_UNROLL
        for (int g = 0; g < G; ++g) {
          Vec& total = scratch.sums[group + g][row + r];
          total = Fma(InUnits<Blocks>(sums.at[r][g]), scratch.scales[b][g], total);
        }
      }
    }
  }
}

// AddPanelTile of tile.rows <= R rows.
template <class Blocks, int R, int G>
void AddPanelRows(int64_t count, const PanelTile& tile, const NextPanel<G>& next,
                  PanelScratch& scratch) {
  if (tile.rows == R) {
    AddPanelTile<Blocks, R, G>(count, tile, next, scratch);
  } else if constexpr (R > 1) {
    AddPanelRows<Blocks, R - 1, G>(count, tile, next, scratch);
  }
}

// The part of a task whose sums wait at the same time: all its rows, groups [begin, end).
struct PanelColumns {
  int64_t num_rows;
  int64_t begin;
  int64_t end;
  const std::byte* next;  // the weights after these; null: not known
};

// What is multiplied once the groups before `group` are, which ends all of these in the last panel
// of a k.
template <class Blocks, int G>
NextPanel<G> PanelAfter(const GemmArgs& args, const PanelColumns& columns, int64_t group,
                        int64_t k_begin) {
  const auto weights = [&](int64_t g) { return args.weights + g * args.group_bytes; };
  if (group + G <= columns.end) return PanelAt<Blocks, G>(args, weights(group), k_begin);
  const int64_t k = k_begin + kWidenedK;
  if (k < args.k) return PanelAt<Blocks, G>(args, weights(columns.begin), k);
  return PanelAt<Blocks, G>(args, columns.next, 0);
}

// Adds k of [k_begin, k_end) to the sums of groups [group, end) in panels of G groups, then of G /
// 2, ... as TileColumns.
template <class Blocks, int G>
void AddPanels(const Blocks& blocks, const GemmArgs& args, const PanelColumns& columns,
               int64_t group, int64_t k_begin, PanelScratch& scratch) {
  const int64_t k_end = Least(args.k, k_begin + kWidenedK);
  const int64_t num_tiles = (columns.num_rows + kPanelRows - 1) / kPanelRows;
  for (; group + G <= columns.end; group += G) {
    const int64_t count = FillPanel<Blocks, G>(blocks, args, group, k_begin, k_end, scratch);
    const NextPanel<G> next = PanelAfter<Blocks, G>(args, columns, group + G, k_begin);
    for (int64_t t = 0; t < num_tiles; ++t) {  // of nearly equal height
      const int64_t first = columns.num_rows * t / num_tiles;
      const int64_t rows = columns.num_rows * (t + 1) / num_tiles - first;
      AddPanelRows<Blocks, kPanelRows, G>(count, {first, rows, group - columns.begin},
                                          PartOf<Blocks>(next, t, num_tiles), scratch);
    }
  }
  if constexpr (G > 1) {
    if (group < columns.end) {
      AddPanels<Blocks, G / 2>(blocks, args, columns, group, k_begin, scratch);
    }
  }
}

template <class Blocks>
void FinishPanels(const GemmArgs& args, int64_t first_row, const PanelColumns& columns,
                  const PanelScratch& scratch) {
  const auto sum = [&](int64_t g, int64_t r) { return Blocks::InOrder(scratch.sums[g][r]); };
  for (int64_t r = 0; r < columns.num_rows; ++r) {
    if (args.epilogue == GemmEpilogue::kGated) {
      for (int64_t g = 0; g < columns.end - columns.begin; g += 2) {
        FinishGateUp(args, first_row + r, columns.begin + g, sum(g, r), sum(g + 1, r));
      }
      continue;
    }
    for (int64_t g = 0; g < columns.end - columns.begin; ++g) {
      FinishGroup(args, first_row + r, columns.begin + g, sum(g, r));
    }
  }
}

// Has `count` values of a row on their way to L2, where they wait for their turn.
inline void PrefetchRow(const InRows& x, int64_t row, int64_t begin, int64_t count) {
  const auto* from = reinterpret_cast<const std::byte*>(Row<uint16_t>(x, row) + begin);
  for (int64_t at = 0; at < 2 * count; at += kLineBytes) PrefetchLine(from + at);
}

template <class Blocks>
void RunPanels(const GemmArgs& args, const GemmTile& tile, int64_t begin, int64_t end) {
  const Blocks blocks;
  PanelScratch scratch;
  for (int64_t first = begin; first < end; first += kSumGroups) {
    const int64_t last = Least(end, first + kSumGroups);
    const PanelColumns columns{
        .num_rows = tile.row_end - tile.row_begin,
        .begin = first,
        .end = last,
        .next = last < end ? args.weights + last * args.group_bytes : tile.next};
    for (int64_t g = 0; g < columns.end - columns.begin; ++g) {
      for (int64_t r = 0; r < columns.num_rows; ++r) scratch.sums[g][r] = Zero();
    }
    for (int64_t k = 0; k < args.k; k += kWidenedK) {
      for (int64_t r = 0; r < columns.num_rows; ++r) {
        WidenRow(args.x, tile.row_begin + r, k, Least(kWidenedK, args.k - k), scratch.rows[r]);
        PrefetchRow(args.x, tile.row_begin + r, k + kWidenedK,
                    Least(kWidenedK, args.k - k - kWidenedK));
      }
      AddPanels<Blocks, kPanelGroups>(blocks, args, columns, first, k, scratch);
    }
    FinishPanels<Blocks>(args, tile.row_begin, columns, scratch);
  }
}

// Groups of weights to a group of y's columns.
inline int64_t GroupsPerColumn(const GemmArgs& args) {
  return args.epilogue == GemmEpilogue::kGated ? 2 : 1;
}

// bf16 weights: few rows in registers, else panels.
void RunWidenedGemm(const GemmArgs& args, const GemmTile& tile) {
  const int64_t rows = tile.row_end - tile.row_begin;
  if (rows <= kMaxTileRows) return RunGemm<WidenDot>(args, tile);
  const int64_t begin = tile.group_begin * GroupsPerColumn(args);
  const int64_t end = tile.group_end * GroupsPerColumn(args);
  if constexpr (kTallTileRows > kMaxTileRows) {
    if (rows <= kTallTileRows)
      return TileColumns<WidenDot, kTallTileRows, kTallTileGroups>(args, tile, begin, end);
  }
  RunPanels<Bf16Blocks>(args, tile, begin, end);
}

template <class Blocks>
void RunScaledGemm(const GemmArgs& args, const GemmTile& tile) {
  const int64_t begin = tile.group_begin * GroupsPerColumn(args);
  const int64_t end = tile.group_end * GroupsPerColumn(args);
  const int64_t rows = tile.row_end - tile.row_begin;
  if (rows <= kScaledStreamRows) {
    TileColumns<ScaledDot<Blocks>, kScaledStreamRows, kScaledStreamGroups>(args, tile, begin, end);
  } else if (rows <= kScaledTileRows && kScaledTileGroups == 1 &&
             args.epilogue == GemmEpilogue::kGated) {
    TileColumns<OneByOne<ScaledDot<Blocks>>, kScaledTileRows, 2>(args, tile, begin, end);
  } else if (rows <= kScaledTileRows) {
    TileColumns<ScaledDot<Blocks>, kScaledTileRows, kScaledTileGroups>(args, tile, begin, end);
  } else {
    RunPanels<Blocks>(args, tile, begin, end);
  }
}

}  // namespace
}  // namespace wideload::compute
