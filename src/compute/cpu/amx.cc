// The amx kernel set: GEMM on tile registers, all else as avx512. Compiled for AVX-512 with
// AMX-TILE and AMX-BF16: all of it but the table is internal.
#include "compute/cpu/vec_avx512.h"
// The vec header comes first.
#include "compute/cpu/gemm_impl.h"
#include "compute/kernels.h"

namespace wideload::compute {
namespace {

constexpr int64_t kTileRows = 16;
constexpr int64_t kTileBytes = 1024;  // 16 rows of 64 bytes
constexpr int64_t kBlockRows = 2 * kTileRows;
constexpr int64_t kPanelK = 4096;  // rows are copied to a panel of this many k at most

struct TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64);

// Tiles 0-3 hold sums [2 row tiles][2 column groups], 4-5 rows, 6-7 weights.
class TileSession {
 public:
  TileSession() {
    TileConfig config;
    for (int t = 0; t < 8; ++t) {
      config.row_bytes[t] = 64;
      config.rows[t] = kTileRows;
    }
    // Not the intrinsic: GCC 12's reads only the first 8 bytes of its operand, so that the other
    // stores may be dropped.
    asm volatile("ldtilecfg %0" : : "m"(config));
  }
  ~TileSession() { _tile_release(); }
  TileSession(const TileSession&) = delete;
  TileSession& operator=(const TileSession&) = delete;
};

// The loads and stores of tiles say nothing to the compiler about the memory they touch.
inline void MemoryBarrier() { asm volatile("" : : : "memory"); }

// Rows of a block in tile order: [k / 32][32 rows][32], zero where there is no row or no k.
struct Panel {
  alignas(64) uint16_t x[kBlockRows * kPanelK];
};

void FillPanel(const InRows& x, int64_t first_row, int64_t rows, int64_t k_begin, int64_t k_end,
               Panel& panel) {
  for (int64_t r = 0; r < rows; ++r) {
    const uint16_t* row = Row<uint16_t>(x, first_row + r);
    uint16_t* to = panel.x + r * kTileK;
    for (int64_t j = k_begin; j < k_end; j += kTileK, to += kBlockRows * kTileK) {
      const int64_t count = Least(kTileK, k_end - j);
      const auto mask = static_cast<__mmask32>((uint64_t{1} << count) - 1U);
      _mm512_store_si512(to, _mm512_maskz_loadu_epi16(mask, row + j));
    }
  }
  // Only a block that is not full has rows to clear, and every block of a task but its last is.
  const int64_t tiles = (k_end - k_begin + kTileK - 1) / kTileK;
  for (int64_t t = 0; t < tiles; ++t) {
    uint16_t* to = panel.x + (t * kBlockRows + rows) * kTileK;
    for (int64_t r = rows; r < kBlockRows; ++r, to += kTileK) {
      _mm512_store_si512(to, _mm512_setzero_si512());
    }
  }
}

// Adds a panel times one or two groups of weights, at their first tile of this panel's k, into the
// tiles of sums. A sum runs over k in order, 32 at a time, in tiles that other rows only share.
template <bool kTwoRowTiles, bool kTwoGroups>
void MultiplyPanel(const Panel& panel, const std::byte* weights, int64_t group_bytes,
                   int64_t tiles) {
  for (int64_t t = 0; t < tiles; ++t) {
    const uint16_t* x = panel.x + t * kBlockRows * kTileK;
    const std::byte* w = weights + t * kTileBytes;
    _tile_loadd(4, x, 64);
    _tile_loadd(6, w, 64);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (kTwoGroups) {
      _tile_loadd(7, w + group_bytes, 64);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (kTwoRowTiles) {
      _tile_loadd(5, x + kTileRows * kTileK, 64);
      _tile_dpbf16ps(2, 5, 6);
      if constexpr (kTwoGroups) _tile_dpbf16ps(3, 5, 7);
    }
    for (int64_t line = 0; line < kTileBytes; line += kLineBytes) {
      PrefetchLine(w + 2 * kTileBytes + line);
      if constexpr (kTwoGroups) PrefetchLine(w + group_bytes + 2 * kTileBytes + line);
    }
  }
}

using Multiply = void (*)(const Panel&, const std::byte*, int64_t, int64_t);

Multiply MultiplyFor(bool two_row_tiles, bool two_groups) {
  if (two_row_tiles) return two_groups ? MultiplyPanel<true, true> : MultiplyPanel<true, false>;
  return two_groups ? MultiplyPanel<false, true> : MultiplyPanel<false, false>;
}

// The sums of a block: [group][row][16].
struct BlockSums {
  alignas(64) float at[2][kBlockRows][kGroupColumns];
};

void ClearSums() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}

void StoreSums(BlockSums& sums) {
  _tile_stored(0, sums.at[0][0], 64);
  _tile_stored(1, sums.at[1][0], 64);
  _tile_stored(2, sums.at[0][kTileRows], 64);
  _tile_stored(3, sums.at[1][kTileRows], 64);
  MemoryBarrier();
}

void FinishBlock(const GemmArgs& args, int64_t first_row, int64_t rows, int64_t group,
                 int64_t groups, const BlockSums& sums) {
  for (int64_t r = 0; r < rows; ++r) {
    const Vec first = Load(sums.at[0][r]);
    const Vec second = Load(sums.at[1][r]);
    if (args.epilogue == GemmEpilogue::kGated) {
      FinishGateUp(args, first_row + r, group, first, second);
      continue;
    }
    FinishGroup(args, first_row + r, group, first);
    if (groups == 2) FinishGroup(args, first_row + r, group + 1, second);
  }
}

// One block of up to 32 rows against groups of weights [begin, end).
void RunBlock(const GemmArgs& args, int64_t first_row, int64_t rows, int64_t begin, int64_t end,
              Panel& panel) {
  const int64_t group_bytes = WidenDot::GroupBytes(args.k);
  const bool fits = args.k <= kPanelK;
  if (fits) FillPanel(args.x, first_row, rows, 0, args.k, panel);
  BlockSums sums;
  for (int64_t group = begin; group < end; group += 2) {
    const int64_t groups = Least(2, end - group);
    const Multiply multiply = MultiplyFor(rows > kTileRows, groups == 2);
    ClearSums();
    for (int64_t k = 0; k < args.k; k += kPanelK) {
      const int64_t k_end = Least(args.k, k + kPanelK);
      if (!fits) FillPanel(args.x, first_row, rows, k, k_end, panel);
      MemoryBarrier();
      multiply(panel, args.weights + group * group_bytes + k / kTileK * kTileBytes, group_bytes,
               (k_end - k + kTileK - 1) / kTileK);
    }
    StoreSums(sums);
    FinishBlock(args, first_row, rows, group, groups, sums);
  }
}

void RunTiles(const GemmArgs& args, const GemmTile& tile) {
  const int64_t per_group = args.epilogue == GemmEpilogue::kGated ? 2 : 1;
  const TileSession session;
  Panel panel;
  for (int64_t row = tile.row_begin; row < tile.row_end; row += kBlockRows) {
    RunBlock(args, row, Least(kBlockRows, tile.row_end - row), tile.group_begin * per_group,
             tile.group_end * per_group, panel);
  }
}

}  // namespace

const Kernels& AmxKernels() {
  static const Kernels kKernels = [] {
    Kernels kernels = Avx512Kernels();
    kernels.gemm[kBf16Gemm] = RunTiles;
    return kernels;
  }();
  return kKernels;
}

}  // namespace wideload::compute
