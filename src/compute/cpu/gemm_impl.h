// GEMM on register tiles of rows x column groups. Each (row, column) sum is one chain over k in
// order, whatever the tile it was computed in.
//
// Blocking: a tile's sums stay in registers over all k; blocks of k would have them stored and
// loaded, and few rows gain nothing by it: of a task's weights (64 KiB, in L2; compute/matmul.cc)
// each line is used by one tile, and rows of it stay in L1. Tiles are as high and wide as registers
// allow (constants of the vec headers): at least 8 sums, since a fused multiply-add takes 4 cycles
// and 2 begin in each. One or two rows take more column groups instead of rows: that many streams
// of weights come from memory at once. So do a few more rows (kPairRows, kTallTileRows), some of
// whose sums then wait in L1. Many rows of bf16 go to panel_impl.h.
// Included after one of the vec headers; internal to the including translation unit.
#pragma once

#include "compute/cpu/rows_impl.h"
#include "compute/kernels.h"

namespace wideload::compute {
namespace {

// Every weight line of one k (fp32) or pair of k (bf16) of a column group is one cache line.
constexpr int64_t kLineBytes = 64;
// How far ahead each stream of weights is fetched: 16 lines, of which a core reads one in about 4
// ns, so that three and more streams are 200 ns ahead, a latency when memory is busy; one and two
// by as many lines together.
constexpr int64_t kPrefetchBytes = 1024;
constexpr int64_t PrefetchBytes(int streams) {
  return kPrefetchBytes * (streams == 1 ? 4 : streams == 2 ? 2 : 1);
}

// What is fetched while the lines of some groups are used: of each the line PrefetchBytes on, and
// near its end the first ones of the groups that come next, which lie apart as these do. Without
// that each tile begins with a wait for memory, which costs a tenth of short ones.
class Ahead {
 public:
  Ahead(const GemmArgs& args, const std::byte* weights, const std::byte* next, int streams)
      : distance_(Least(PrefetchBytes(streams), args.group_bytes)),
        near_end_(reinterpret_cast<intptr_t>(weights) + args.group_bytes - distance_),
        behind_end_(next == nullptr ? distance_ : reinterpret_cast<intptr_t>(next) - near_end_) {}
  // To be fetched while `line` of the first group is used.
  const std::byte* Of(const void* line) const {
    const auto at = reinterpret_cast<intptr_t>(line);
    // NOLINTNEXTLINE(performance-no-int-to-ptr): from one allocation into another
    return reinterpret_cast<const std::byte*>(at + (at < near_end_ ? distance_ : behind_end_));
  }
  // What comes after the first group.
  const std::byte* next() const {
    // NOLINTNEXTLINE(performance-no-int-to-ptr): as above
    return reinterpret_cast<const std::byte*>(near_end_ + behind_end_);
  }

 private:
  intptr_t distance_;
  intptr_t near_end_;
  intptr_t behind_end_;
};

// Where the sums of a row tile come from and go to.
template <int R, int G>
struct Sums {
  Vec at[R][G];
};

template <int R, int G>
inline void Clear(Sums<R, G>& sums) {
  WIDELOAD_UNROLL
  for (int r = 0; r < R; ++r) {
    WIDELOAD_UNROLL
    for (int g = 0; g < G; ++g) sums.at[r][g] = Zero();
  }
}

// fp32 rows times fp32 weights [k][16].
struct F32Dot {
  template <int R, int G>
  static void Run(const GemmArgs& args, int64_t first_row, const std::byte* weights,
                  const Ahead& ahead, Sums<R, G>& result) {
    const float* rows[R];
    for (int r = 0; r < R; ++r) rows[r] = Row<float>(args.x, first_row + r);
    const auto* w = reinterpret_cast<const float*>(weights);
    const int64_t group = args.group_bytes / 4;
    Sums<R, G> sums;
    Clear(sums);
    for (int64_t j = 0; j < args.k; ++j, w += kGroupColumns) {
      const std::byte* fetched = ahead.Of(w);
      WIDELOAD_UNROLL
      for (int g = 0; g < G; ++g) {
        PrefetchLine(fetched + g * args.group_bytes);
        const Vec column = Load(w + g * group);
        WIDELOAD_UNROLL
        for (int r = 0; r < R; ++r) sums.at[r][g] = Fma(Set1(rows[r][j]), column, sums.at[r][g]);
      }
    }
    result = sums;
  }
};

// bf16 rows times bf16 weights [k / 2][16][2], both widened to fp32: exact products, two fused
// multiply-adds per pair of k.
struct WidenDot {
  template <int R, int G>
  // NOLINTNEXTLINE(readability-function-size): loops over a register tile in loops over k
  static void Run(const GemmArgs& args, int64_t first_row, const std::byte* weights,
                  const Ahead& ahead, Sums<R, G>& result) {
    constexpr int64_t kStep = 256;  // k widened at once: R rows of it stay in L1
    float wide[R][kStep];
    Sums<R, G> sums;
    Clear(sums);
    const auto* w = reinterpret_cast<const uint16_t*>(weights);
    const int64_t group = args.group_bytes / 2;
    for (int64_t begin = 0; begin < args.k; begin += kStep) {
      const int64_t count = Least(kStep, args.k - begin);
      for (int r = 0; r < R; ++r) {
        const uint16_t* row = Row<uint16_t>(args.x, first_row + r) + begin;
        for (int64_t j = 0; j < count; j += kLanes) {
          Store(wide[r] + j, LoadUpTo(row + j, count - j));
        }
      }
      // An odd last k is a pair whose second half is zero: the row's by Store above, the weight's
      // by packing.
      for (int64_t j = 0; j < count; j += 2, w += 2 * kGroupColumns) {
        const std::byte* fetched = ahead.Of(w);
        WIDELOAD_UNROLL
        for (int g = 0; g < G; ++g) {
          PrefetchLine(fetched + g * args.group_bytes);
          const Vec first = LoadPairFirst(w + g * group);
          WIDELOAD_UNROLL
          for (int r = 0; r < R; ++r) {
            sums.at[r][g] = Fma(Set1(wide[r][j]), first, sums.at[r][g]);
          }
          const Vec second = LoadPairSecond(w + g * group);
          WIDELOAD_UNROLL
          for (int r = 0; r < R; ++r) {
            sums.at[r][g] = Fma(Set1(wide[r][j + 1]), second, sums.at[r][g]);
          }
        }
      }
    }
    result = sums;
  }
};

inline Vec WithBias(const GemmArgs& args, int64_t group, Vec sum) {
  return args.bias == nullptr ? sum : Add(sum, Load(args.bias + group * kGroupColumns));
}

// y's part of one group of sums, as the epilogue says.
inline void FinishGroup(const GemmArgs& args, int64_t row, int64_t group, Vec sum) {
  const int64_t column = group * kGroupColumns;
  const int64_t count = args.n - column;
  sum = WithBias(args, group, sum);
  if (args.epilogue == GemmEpilogue::kRound) {
    StoreUpTo(Row<uint16_t>(args.y, row) + column, sum, count);
    return;
  }
  float* y = Row<float>(args.y, row) + column;
  StoreUpTo(y, args.epilogue == GemmEpilogue::kAdd ? Add(LoadUpTo(y, count), sum) : sum, count);
}

// `group` is gate's, the next one is up's.
inline void FinishGateUp(const GemmArgs& args, int64_t row, int64_t group, Vec gate, Vec up) {
  const int64_t column = group / 2 * kGroupColumns;
  const Vec product =
      Activate(args.activation, WithBias(args, group, gate), WithBias(args, group + 1, up));
  StoreUpTo(Row<uint16_t>(args.y, row) + column, product, args.n - column);
}

// `group` counts groups of weights: for gate and up, two to a group of y's columns.
template <int R, int G>
// NOLINTNEXTLINE(readability-function-size): what is known when it is compiled nests, too
void Finish(const GemmArgs& args, int64_t first_row, int64_t group, const Sums<R, G>& sums) {
  for (int r = 0; r < R; ++r) {
    if (args.epilogue == GemmEpilogue::kGated) {
      if constexpr (G % 2 == 0) {
        for (int g = 0; g < G; g += 2) {
          FinishGateUp(args, first_row + r, group + g, sums.at[r][g], sums.at[r][g + 1]);
        }
      }
    } else {
      for (int g = 0; g < G; ++g) FinishGroup(args, first_row + r, group + g, sums.at[r][g]);
    }
  }
}

// Rows of a tile, and the groups of weights that they are multiplied with.
struct TilePlace {
  int64_t first_row;
  int64_t rows;
  int64_t group;
  const std::byte* next;  // the weights after these; null: not known
};

// A tile of place.rows <= R rows.
template <class Dot, int R, int G>
void Tile(const GemmArgs& args, const TilePlace& place) {
  if (place.rows == R) {
    const std::byte* weights = args.weights + place.group * args.group_bytes;
    Sums<R, G> sums;
    Dot::Run(args, place.first_row, weights, Ahead(args, weights, place.next, G), sums);
    Finish(args, place.first_row, place.group, sums);
  } else if constexpr (R > 1) {
    Tile<Dot, R - 1, G>(args, place);
  }
}

// All rows of a tile of a task for G groups of weights, in tiles of nearly equal height.
template <class Dot, int R, int G>
void TileColumn(const GemmArgs& args, const GemmTile& tile, int64_t group, const std::byte* next) {
  int64_t begin = tile.row_begin;
  int64_t tiles = (tile.row_end - begin + R - 1) / R;
  for (; tiles > 0; --tiles) {
    const int64_t rows = (tile.row_end - begin + tiles - 1) / tiles;
    Tile<Dot, R, G>(args, {begin, rows, group, next});
    begin += rows;
  }
}

// Groups of weights [group, end) in tiles of R x G, then of half as many, ... A pair of gate and up
// is never torn: there both ends are even.
template <class Dot, int R, int G>
void TileColumns(const GemmArgs& args, const GemmTile& tile, int64_t group, int64_t end) {
  for (; group + G <= end; group += G) {
    const bool is_last = group + G == end;
    TileColumn<Dot, R, G>(args, tile, group,
                          is_last ? tile.next : args.weights + (group + G) * args.group_bytes);
  }
  if constexpr (G > 1) {
    if (group < end) TileColumns<Dot, R, (G + 1) / 2>(args, tile, group, end);
  }
}

template <class Dot>
void RunGemm(const GemmArgs& args, const GemmTile& tile) {
  const bool is_gate_up = args.epilogue == GemmEpilogue::kGated;
  const int64_t per_group = is_gate_up ? 2 : 1;
  const int64_t begin = tile.group_begin * per_group;
  const int64_t end = tile.group_end * per_group;
  const int64_t rows = tile.row_end - tile.row_begin;
  if (rows <= kStreamRows) {
    TileColumns<Dot, kStreamRows, kStreamGroups>(args, tile, begin, end);
  } else if (kTileGroups == 1 && (is_gate_up || rows <= kPairRows)) {
    TileColumns<Dot, kPairRows, 2>(args, tile, begin, end);
  } else {
    TileColumns<Dot, kMaxTileRows, kTileGroups>(args, tile, begin, end);
  }
}

}  // namespace
}  // namespace wideload::compute
