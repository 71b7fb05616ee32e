// Sixteen fp32 lanes in one AVX-512 register. Everything is internal to the including translation
// unit, which must be compiled for AVX-512 F, BW, DQ and VL; vec_avx2.h offers the same names.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace wideload::compute {
namespace {

constexpr int64_t kLanes = 16;

struct Vec {
  __m512 v;
};

// The first `count` lanes, 0 <= count <= 16.
inline __mmask16 FirstLanes(int64_t count) {
  return static_cast<__mmask16>((uint32_t{1} << count) - 1U);
}

inline Vec Zero() { return {_mm512_setzero_ps()}; }
inline Vec Set1(float x) { return {_mm512_set1_ps(x)}; }
inline Vec Load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void Store(float* p, Vec a) { _mm512_storeu_ps(p, a.v); }
// Lanes beyond `count` are zero and their memory is not touched.
inline Vec LoadPartial(const float* p, int64_t count) {
  return {_mm512_maskz_loadu_ps(FirstLanes(count), p)};
}
inline void StorePartial(float* p, Vec a, int64_t count) {
  _mm512_mask_storeu_ps(p, FirstLanes(count), a.v);
}
// The first `count` lanes of a, the rest of b.
inline Vec Select(int64_t count, Vec a, Vec b) {
  return {_mm512_mask_blend_ps(FirstLanes(count), b.v, a.v)};
}

inline Vec WidenBf16(__m256i bits) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))};
}
inline Vec LoadBf16(const uint16_t* p) {
  return WidenBf16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline Vec LoadBf16Partial(const uint16_t* p, int64_t count) {
  return WidenBf16(_mm256_maskz_loadu_epi16(FirstLanes(count), p));
}
// Attention keeps runs of sixteen elements with their middle quarters exchanged, an order in which
// one shuffle widens bf16 (the other way takes two operations of the multiply-adds' units). Mixed
// brings them there and back.
inline Vec Mixed(Vec a) { return {_mm512_shuffle_f32x4(a.v, a.v, 0xd8)}; }
inline Vec LoadBf16Mixed(const uint16_t* p) {
  const __m512i places = _mm512_set_epi32(  // of each lane's two bytes within a quarter
      0x0f0effff, 0x0d0cffff, 0x0b0affff, 0x0908ffff, 0x0f0effff, 0x0d0cffff, 0x0b0affff,
      0x0908ffff, 0x0706ffff, 0x0504ffff, 0x0302ffff, 0x0100ffff, 0x0706ffff, 0x0504ffff,
      0x0302ffff, 0x0100ffff);
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return {_mm512_castsi512_ps(_mm512_shuffle_epi8(_mm512_broadcast_i64x4(bits), places))};
}
// Round to nearest even; NaN stays NaN. The processor's own conversion flushes denormals.
inline __m256i NarrowBf16(Vec a) {
  const __m512i bits = _mm512_castps_si512(a.v);
  const __m512i lowest = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded =
      _mm512_add_epi32(bits, _mm512_add_epi32(lowest, _mm512_set1_epi32(0x7fff)));
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  const __mmask16 is_nan = _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q);
  const __m512i chosen = _mm512_mask_blend_epi32(is_nan, rounded, quiet);
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(chosen, 16));
}
inline void StoreBf16(uint16_t* p, Vec a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), NarrowBf16(a));
}
inline void StoreBf16Partial(uint16_t* p, Vec a, int64_t count) {
  _mm256_mask_storeu_epi16(p, FirstLanes(count), NarrowBf16(a));
}
// Sixteen pairs of bf16 at p: the first, the second of each pair.
inline Vec LoadPairFirst(const uint16_t* p) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(p), 16))};
}
inline Vec LoadPairSecond(const uint16_t* p) {
  return {_mm512_castsi512_ps(
      _mm512_and_si512(_mm512_loadu_si512(p), _mm512_set1_epi32(static_cast<int>(0xffff0000U))))};
}

// A line of e4m3 [2][16][2]: four k of sixteen columns, each value / kFp8Unit: the bits, moved to
// where half precision has its exponent and mantissa, mean 2^-8 of the value there, denormals
// included.
constexpr float kFp8Unit = 256;
class Fp8Columns {
 public:
  [[gnu::always_inline]] explicit Fp8Columns(const std::byte* line) {
    const __m512i codes = _mm512_loadu_si512(line);
    const __m512i fields = _mm512_set1_epi16(static_cast<int16_t>(0xbf80));
    halves_[0] = _mm512_and_si512(_mm512_srai_epi16(_mm512_slli_epi16(codes, 8), 1), fields);
    halves_[1] = _mm512_and_si512(_mm512_srai_epi16(codes, 1), fields);
    // Through memory, from where a conversion takes sixteen in one operation.
    asm("" : "+m"(halves_));
  }
  // The first two k are in the lower parts.
  [[gnu::always_inline]] Vec At(int64_t k) const {
    const auto* parts = reinterpret_cast<const __m256i*>(halves_ + k % 2);
    return {_mm512_cvtph_ps(_mm256_load_si256(parts + k / 2))};
  }

 private:
  alignas(64) __m512i halves_[2];
};

// The sixteen values of a 4-bit code.
struct FourBitTable {
  __m512 values;
};
inline FourBitTable Int4Values() {
  return {_mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7)};
}
inline FourBitTable Mxfp4Values() {
  return {_mm512_setr_ps(0, 0.5F, 1, 1.5F, 2, 3, 4, 6, 0, -0.5F, -1, -1.5F, -2, -3, -4, -6)};
}
// A line of sixteen words of 8 codes, low bits first: eight k of sixteen columns.
class FourBitColumns {
 public:
  FourBitColumns(const std::byte* line, const FourBitTable& table) {
    __m512i codes = _mm512_loadu_si512(line);
    for (Vec& column : columns_) {
      column.v = _mm512_permutexvar_ps(codes, table.values);  // by the low four bits
      codes = _mm512_srli_epi32(codes, 4);
    }
  }
  Vec At(int64_t k) const { return columns_[k]; }

 private:
  Vec columns_[8];
};
// Scales of sixteen columns: bf16, and 2^(byte - 127), 0 of 0.
inline Vec LoadBf16Scales(const uint16_t* p) { return LoadBf16(p); }
inline Vec LoadExponents(const std::byte* p) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu8_epi32(bytes), 23))};
}

// Sums of sixteen columns from the order of FourBitColumns, here their own.
inline Vec FourBitSums(Vec a) { return a; }

inline Vec Add(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Vec Sub(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Vec Mul(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Vec Div(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
// b where a lane of either is NaN.
inline Vec Max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
inline Vec Min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
// a * b + c and c - a * b, rounded once.
inline Vec Fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline Vec NegFma(Vec a, Vec b, Vec c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }
inline Vec Round(Vec a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
// x * 2^n for integral n, rounded once.
inline Vec Scale2(Vec x, Vec n) { return {_mm512_scalef_ps(x.v, n.v)}; }
// Whether any lane of a is greater than that of b; a NaN is not.
inline bool AnyGreater(Vec a, Vec b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ) != 0; }

inline float FirstLane(Vec a) { return _mm512_cvtss_f32(a.v); }
// Sum and maximum over the lanes: halves, quarters, pairs.
inline float SumLanes(Vec a) {
  const __m256 h = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  const __m128 p = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(p, _mm_movehdup_ps(p)));
}
inline float MaxLanes(Vec a) {
  const __m256 h = _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  const __m128 p = _mm_max_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_max_ss(p, _mm_movehdup_ps(p)));
}

// Sums over the lanes of rows, which are Mixed, in two goes, so that what leaves the registers of a
// tile is half as much: FoldRows makes 8 partial sums of each row, and of sixteen rows' those,
// SumEachOf16Folded makes lane j the sum of row j.
template <int kRows>
inline void FoldRows(const Vec (&rows)[kRows], float* folded) {
  static_assert(kRows % 2 == 0);
  for (size_t i = 0; i < kRows; i += 2) {
    const __m512 a = rows[i].v;
    const __m512 b = rows[i + 1].v;
    const __m512 pairs = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    _mm512_storeu_ps(folded + 8 * i, pairs);
  }
}
inline Vec SumEachOf16Folded(const float* folded) {
  // Each quarter of quads[i] holds parts of the sums of rows 4 i .. 4 i + 3.
  __m512 quads[4];
  for (size_t i = 0; i < 4; ++i) {
    const __m512 a = _mm512_loadu_ps(folded + 32 * i);
    const __m512 b = _mm512_loadu_ps(folded + 32 * i + 16);
    quads[i] = _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xee));
  }
  __m512 halves[2];
  for (size_t i = 0; i < 2; ++i) {  // quarters 0 and 1, 2 and 3 of what was mixed
    const __m512 a = quads[2 * i];
    const __m512 b = quads[2 * i + 1];
    halves[i] = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
  }
  return {_mm512_add_ps(_mm512_shuffle_f32x4(halves[0], halves[1], 0x88),
                        _mm512_shuffle_f32x4(halves[0], halves[1], 0xdd))};
}

// Not the intrinsic: it is no effect to GCC 12, which drops calls of what does nothing else.
inline void PrefetchLine(const void* p) {
  asm volatile("prefetcht0 %0" : : "m"(*static_cast<const char*>(p)));
}
// There are enough registers that all sums of a tile stay in them.
inline void KeepInRegister(Vec&) {}
// What several multiply-adds use: GCC 12 else loads it again in each of them.
inline Vec LoadShared(const float* p) {
  Vec a = Load(p);
  asm("" : "+v"(a.v));
  return a;
}

// Rows and column groups of a GEMM micro-kernel that fill the 32 registers.
constexpr int kMaxTileRows = 6;
constexpr int kTileGroups = 4;
constexpr int kPairRows = 1;  // a tile has more than one group anyway
// More rows than kMaxTileRows in one tile, where weights come from memory and each line is widened
// once for all of them. Not all of its sums fit the registers: three groups' would, but four
// streams come from memory at a steadier rate, and end with a task.
constexpr int kTallTileRows = 8;
constexpr int kTallTileGroups = 4;
constexpr int kStreamRows = 2;  // so few rows: as many weight streams as registers allow
constexpr int kStreamGroups = 8;
// Block-scaled weights are widened in registers for so few rows: four or eight values of a column
// beside the sums. Beyond that through a panel of kPanelGroups groups of 8 KiB, which stays in L1,
// with tiles of kPanelRows x kPanelGroups sums.
constexpr int kScaledStreamRows = 2;
constexpr int kScaledStreamGroups = 8;
constexpr int kScaledTileRows = 4;
constexpr int kScaledTileGroups = 4;
constexpr int kPanelRows = 12;
constexpr int kPanelGroups = 2;
// What attention keeps in registers at once: dot products, and runs of sums over values, each of
// kTileQueries at most. For kCachedQueries at most it widens keys and values where it uses them.
constexpr int kDotsAtOnce = 16;
constexpr int kSumsAtOnce = 16;
constexpr int kTileQueries = 8;
constexpr int kCachedQueries = 8;

}  // namespace
}  // namespace wideload::compute
