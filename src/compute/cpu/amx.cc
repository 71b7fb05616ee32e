// The amx kernel set: GEMM on tile registers, all else as avx512. Compiled for AVX-512 with
// AMX-TILE and AMX-BF16: all of it but the table is internal.
//
// Blocking: the eight tile registers (16 rows of 64 bytes) hold 2 x 2 sums, 2 of rows and 2 of
// weights, so that four products follow four loads. Rows are copied to a panel in tile order, 32
// rows of kPanelK k (256 KiB, an eighth of L2), which all columns of a task are multiplied with.
// Block-scaled weights are widened kWideK k of two groups at a time (8 KiB, in L1).
#include "compute/cpu/vec_avx512.h"
// The vec header comes first.
#include "compute/cpu/gemm_impl.h"
#include "compute/cpu/scaled_dot_impl.h"
#include "compute/kernels.h"

// Not the intrinsic: GCC 12's reads only the first 8 bytes of its operand, so that the other stores
// may be dropped. A test that emulates tiles has its own.
#ifndef WIDELOAD_LOAD_TILE_CONFIG
#define WIDELOAD_LOAD_TILE_CONFIG(config) asm volatile("ldtilecfg %0" : : "m"(config))
#endif

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
    WIDELOAD_LOAD_TILE_CONFIG(config);
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

// Adds tiles of a panel's rows, from `first` on, times those of one or two groups of weights into
// the tiles of sums. A sum runs over k in order, 32 at a time, in tiles that other rows only share.
template <bool kTwoRowTiles, bool kTwoGroups>
void MultiplyTiles(const uint16_t* first, const std::byte* weights, int64_t group_bytes,
                   int64_t tiles) {
  for (int64_t t = 0; t < tiles; ++t) {
    const uint16_t* x = first + t * kBlockRows * kTileK;
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

using Multiply = void (*)(const uint16_t*, const std::byte*, int64_t, int64_t);

Multiply MultiplyFor(bool two_row_tiles, bool two_groups) {
  if (two_row_tiles) return two_groups ? MultiplyTiles<true, true> : MultiplyTiles<true, false>;
  return two_groups ? MultiplyTiles<false, true> : MultiplyTiles<false, false>;
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
      multiply(panel.x, args.weights + group * args.group_bytes + k / kTileK * kTileBytes,
               args.group_bytes, (k_end - k + kTileK - 1) / kTileK);
    }
    StoreSums(sums);
    FinishBlock(args, first_row, rows, group, groups, sums);
  }
}

// e4m3 of a pair of k for sixteen columns as bf16. Normal numbers move their fields and change the
// exponent's bias from 7 to 127; the eight that are zero or denormal come from a table.
inline __m512i Fp8ToBf16(const std::byte* codes) {
  const __m512i wide =
      _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes)));
  const __m512i fields = _mm512_and_si512(_mm512_slli_epi16(wide, 4), _mm512_set1_epi16(0x07f0));
  const __m512i normal = _mm512_add_epi16(fields, _mm512_set1_epi16(120 << 7));
  // m * 2^-9, eight words four times.
  const __m512i small = _mm512_broadcast_i32x4(
      _mm_setr_epi16(0, 0x3b00, 0x3b80, 0x3bc0, 0x3c00, 0x3c20, 0x3c40, 0x3c60));
  const __mmask32 is_small = _mm512_testn_epi16_mask(wide, _mm512_set1_epi16(0x78));
  const __m512i magnitude = _mm512_mask_permutexvar_epi16(normal, is_small, wide, small);
  const __m512i sign = _mm512_set1_epi16(static_cast<int16_t>(0x8000));
  return _mm512_or_si512(magnitude, _mm512_and_si512(wide, sign));
}

// Sixteen bf16 values of 4-bit codes, twice: a look-up uses five bits.
inline __m512i FourBitBf16(__m256i values) { return _mm512_broadcast_i64x4(values); }

// Pair kPair of the 8 codes in each word, as bf16.
template <int kPair>
inline __m512i FourBitPair(__m512i words, __m512i values) {
  constexpr int kLow = 8 * kPair;  // where the first code of the pair stands; it goes to bit 0
  constexpr int kHigh = kLow + 4;  // the second goes to bit 16
  const __m512i low = _mm512_srli_epi32(words, kLow);
  const __m512i high = kHigh <= 16 ? _mm512_slli_epi32(words, kHigh <= 16 ? 16 - kHigh : 0)
                                   : _mm512_srli_epi32(words, kHigh > 16 ? kHigh - 16 : 0);
  return _mm512_permutexvar_epi16(_mm512_mask_blend_epi16(0xaaaaaaaaU, low, high), values);
}

// The four pairs of a line to four rows of a tile; scaled(pair) is stored.
template <class Scaled>
inline void StoreFourBitLine(const std::byte* line, __m512i values, Scaled scaled,
                             std::byte* rows) {
  const __m512i words = _mm512_loadu_si512(line);
  _mm512_store_si512(rows, scaled(FourBitPair<0>(words, values)));
  _mm512_store_si512(rows + kLineBytes, scaled(FourBitPair<1>(words, values)));
  _mm512_store_si512(rows + 2 * kLineBytes, scaled(FourBitPair<2>(words, values)));
  _mm512_store_si512(rows + 3 * kLineBytes, scaled(FourBitPair<3>(words, values)));
}

// How a format's 32 k of a group become a tile, and whether its scales are in the tile then; else
// they multiply the sums over a block's tiles.

struct Fp8Tiles : Fp8Blocks {
  static constexpr bool kFoldsScales = false;
  static void Widen(const std::byte* group, int64_t k, std::byte* tile) {
    const std::byte* codes = Lines(group, k / kBlockK) + k % kBlockK * kGroupColumns;
    for (int64_t pair = 0; pair < kTileK / 2; ++pair, codes += 2 * kGroupColumns) {
      if (pair % 2 == 0) PrefetchLine(codes + kPrefetchBytes);
      _mm512_store_si512(tile + pair * kLineBytes, Fp8ToBf16(codes));
    }
  }
};

struct Int4Tiles : Int4Blocks {
  static constexpr bool kFoldsScales = false;
  static void Widen(const std::byte* group, int64_t k, std::byte* tile) {
    // -8 .. 7
    const __m512i values = FourBitBf16(_mm256_setr_epi16(
        static_cast<int16_t>(0xc100), static_cast<int16_t>(0xc0e0), static_cast<int16_t>(0xc0c0),
        static_cast<int16_t>(0xc0a0), static_cast<int16_t>(0xc080), static_cast<int16_t>(0xc040),
        static_cast<int16_t>(0xc000), static_cast<int16_t>(0xbf80), 0, 0x3f80, 0x4000, 0x4040,
        0x4080, 0x40a0, 0x40c0, 0x40e0));
    const std::byte* lines = Lines(group, k / kBlockK);
    for (int64_t i = 0; i < kTileBytes; i += 4 * kLineBytes, lines += kLineBytes) {
      PrefetchLine(lines + kPrefetchBytes);
      StoreFourBitLine(
          lines, values, [](__m512i pair) { return pair; }, tile + i);
    }
  }
};

struct Mxfp4Tiles : Mxfp4Blocks {
  static constexpr bool kFoldsScales = true;
  static void Widen(const std::byte* group, int64_t k, std::byte* tile) {
    // 0 0.5 1 1.5 2 3 4 6, and the same negative
    const __m512i values = FourBitBf16(_mm256_setr_epi16(
        0, 0x3f00, 0x3f80, 0x3fc0, 0x4000, 0x4040, 0x4080, 0x40c0, static_cast<int16_t>(0x8000),
        static_cast<int16_t>(0xbf00), static_cast<int16_t>(0xbf80), static_cast<int16_t>(0xbfc0),
        static_cast<int16_t>(0xc000), static_cast<int16_t>(0xc040), static_cast<int16_t>(0xc080),
        static_cast<int16_t>(0xc0c0)));
    const std::byte* bytes = ScaleBytes(group, k / kBlockK);
    const __m512i exponents = _mm512_sub_epi32(
        _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes))),
        _mm512_set1_epi32(127));
    // What both values of a pair add to their exponents.
    const __m512i low =
        _mm512_and_si512(_mm512_slli_epi32(exponents, 7), _mm512_set1_epi32(0xffff));
    const __m512i scales = _mm512_or_si512(low, _mm512_slli_epi32(low, 16));
    const std::byte* lines = Lines(group, k / kBlockK);
    for (int64_t i = 0; i < kTileBytes; i += 4 * kLineBytes, lines += kLineBytes) {
      PrefetchLine(lines + kPrefetchBytes);
      const auto scaled = [scales](__m512i pair) {
        const __mmask32 is_not_zero = _mm512_test_epi16_mask(pair, _mm512_set1_epi16(0x7fff));
        return _mm512_mask_add_epi16(pair, is_not_zero, pair, scales);
      };
      StoreFourBitLine(lines, values, scaled, tile + i);
    }
  }
};

constexpr int64_t kWideK = 128;  // k of two groups that stand widened at once: 8 KiB
struct WideTiles {
  alignas(64) std::byte at[2][kWideK / kTileK * kTileBytes];
};

// totals += scales * partial, for the rows and groups of a block.
void AddScaled(const BlockSums& partial, const Vec (&scales)[2], int64_t rows, int64_t groups,
               BlockSums& totals) {
  for (int64_t g = 0; g < groups; ++g) {
    for (int64_t r = 0; r < rows; ++r) {
      const Vec sum = Fma(Load(partial.at[g][r]), scales[g], Load(totals.at[g][r]));
      Store(totals.at[g][r], sum);
    }
  }
}

// One pair of groups (or one) of a block of rows, k of [begin, end), whose rows stand in `panel`.
template <class Tiles>
struct ScaledBlock {
  const Panel& panel;
  const std::byte* weights;  // of the first group
  int64_t group_bytes;
  int64_t rows;
  int64_t groups;
  BlockSums totals;

  void Add(int64_t begin, int64_t end) {
    const Multiply multiply = MultiplyFor(rows > kTileRows, groups == 2);
    constexpr int64_t kStep = Tiles::kFoldsScales ? kWideK : Tiles::kBlockK;
    static_assert(kStep <= kWideK && kPanelK % kStep == 0);
    WideTiles wide;
    for (int64_t k = begin; k < end; k += kStep) {
      const int64_t tiles = (Least(kStep, end - k) + kTileK - 1) / kTileK;
      for (int64_t g = 0; g < groups; ++g) {
        for (int64_t t = 0; t < tiles; ++t) {
          Tiles::Widen(weights + g * group_bytes, k + t * kTileK, wide.at[g] + t * kTileBytes);
        }
      }
      MemoryBarrier();
      multiply(panel.x + (k - begin) * kBlockRows, wide.at[0], sizeof(wide.at[0]), tiles);
      if constexpr (!Tiles::kFoldsScales) TakeSums(k / Tiles::kBlockK);
    }
  }

  // The tiles' sums over scale block b go to the totals.
  void TakeSums(int64_t b) {
    BlockSums partial;
    StoreSums(partial);
    ClearSums();
    Vec scales[2];
    for (int64_t g = 0; g < groups; ++g) scales[g] = Tiles::Scales(weights + g * group_bytes, b);
    AddScaled(partial, scales, rows, groups, totals);
  }
};

// RunBlock with block-scaled weights: they are widened to bf16 tiles for each block of rows.
template <class Tiles>
void RunScaledBlock(const GemmArgs& args, int64_t first_row, int64_t rows, int64_t begin,
                    int64_t end, Panel& panel) {
  const bool fits = args.k <= kPanelK;
  if (fits) FillPanel(args.x, first_row, rows, 0, args.k, panel);
  for (int64_t group = begin; group < end; group += 2) {
    ScaledBlock<Tiles> block{.panel = panel,
                             .weights = args.weights + group * args.group_bytes,
                             .group_bytes = args.group_bytes,
                             .rows = rows,
                             .groups = Least(2, end - group),
                             .totals = {}};
    ClearSums();
    for (int64_t k = 0; k < args.k; k += kPanelK) {
      const int64_t k_end = Least(args.k, k + kPanelK);
      if (!fits) FillPanel(args.x, first_row, rows, k, k_end, panel);
      block.Add(k, k_end);
    }
    if constexpr (Tiles::kFoldsScales) StoreSums(block.totals);
    FinishBlock(args, first_row, rows, group, block.groups, block.totals);
  }
}

using BlockRunner = void(const GemmArgs&, int64_t first_row, int64_t rows, int64_t begin,
                         int64_t end, Panel&);

template <BlockRunner* kRunBlock>
void RunTiles(const GemmArgs& args, const GemmTile& tile) {
  const int64_t per_group = args.epilogue == GemmEpilogue::kGated ? 2 : 1;
  const TileSession session;
  Panel panel;
  for (int64_t row = tile.row_begin; row < tile.row_end; row += kBlockRows) {
    kRunBlock(args, row, Least(kBlockRows, tile.row_end - row), tile.group_begin * per_group,
              tile.group_end * per_group, panel);
  }
}

}  // namespace

const Kernels& AmxKernels() {
  static const Kernels kKernels = [] {
    Kernels kernels = Avx512Kernels();
    kernels.wide_task_groups = Kernels().wide_task_groups;
    kernels.gemm[kBf16Gemm] = RunTiles<RunBlock>;
    kernels.gemm[kFp8Gemm] = RunTiles<RunScaledBlock<Fp8Tiles>>;
    kernels.gemm[kInt4Gemm] = RunTiles<RunScaledBlock<Int4Tiles>>;
    kernels.gemm[kMxfp4Gemm] = RunTiles<RunScaledBlock<Mxfp4Tiles>>;
    return kernels;
  }();
  return kKernels;
}

}  // namespace wideload::compute
