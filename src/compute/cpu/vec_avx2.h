// Sixteen fp32 lanes in two AVX registers, with the names and lane order of vec_avx512.h.
// Everything is internal to the including translation unit, which must be compiled for AVX2 and
// FMA.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace wideload::compute {
namespace {

constexpr int64_t kLanes = 16;

struct Vec {
  __m256 lo;
  __m256 hi;
};

// All ones in the first `count` of 8 lanes.
inline __m256i FirstLanes(int64_t count) {
  const __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), index);
}

inline Vec Zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline Vec Set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline Vec Load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void Store(float* p, Vec a) {
  _mm256_storeu_ps(p, a.lo);
  _mm256_storeu_ps(p + 8, a.hi);
}
// Lanes beyond `count` are zero and their memory is not touched.
inline Vec LoadPartial(const float* p, int64_t count) {
  return {_mm256_maskload_ps(p, FirstLanes(count)),
          _mm256_maskload_ps(p + 8, FirstLanes(count - 8))};
}
inline void StorePartial(float* p, Vec a, int64_t count) {
  _mm256_maskstore_ps(p, FirstLanes(count), a.lo);
  _mm256_maskstore_ps(p + 8, FirstLanes(count - 8), a.hi);
}
// The first `count` lanes of a, the rest of b.
inline Vec Select(int64_t count, Vec a, Vec b) {
  return {_mm256_blendv_ps(b.lo, a.lo, _mm256_castsi256_ps(FirstLanes(count))),
          _mm256_blendv_ps(b.hi, a.hi, _mm256_castsi256_ps(FirstLanes(count - 8)))};
}

inline __m256 WidenBf16(__m128i bits) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
inline Vec LoadBf16(const uint16_t* p) {
  return {WidenBf16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
          WidenBf16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)))};
}
inline Vec LoadBf16Partial(const uint16_t* p, int64_t count) {
  uint16_t whole[kLanes] = {};
  for (int64_t i = 0; i < count; ++i) whole[i] = p[i];
  return LoadBf16(whole);
}
// The order of lanes that attention keeps runs of sixteen elements in; here their own.
inline Vec Mixed(Vec a) { return a; }
// LoadBf16 with one shuffle for eight elements: a shift would take a multiply-add's place.
inline __m256 LoadBf16Shuffled(const uint16_t* p) {
  const __m256i places = _mm256_set_epi32(  // of each lane's two bytes
      0x0f0effff, 0x0d0cffff, 0x0b0affff, 0x0908ffff, 0x0706ffff, 0x0504ffff, 0x0302ffff,
      0x0100ffff);
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(bits), places));
}
inline Vec LoadBf16Mixed(const uint16_t* p) {
  return {LoadBf16Shuffled(p), LoadBf16Shuffled(p + 8)};
}
// Round to nearest even; NaN stays NaN. The upper half of each 32-bit lane is zero.
inline __m256i NarrowBf16(__m256 a) {
  const __m256i bits = _mm256_castps_si256(a);
  const __m256i lowest = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded =
      _mm256_add_epi32(bits, _mm256_add_epi32(lowest, _mm256_set1_epi32(0x7fff)));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
  return _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, is_nan), 16);
}
inline void StoreBf16(uint16_t* p, Vec a) {
  const __m256i mixed = _mm256_packus_epi32(NarrowBf16(a.lo), NarrowBf16(a.hi));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(mixed, 0xd8));
}
inline void StoreBf16Partial(uint16_t* p, Vec a, int64_t count) {
  uint16_t whole[kLanes];
  StoreBf16(whole, a);
  for (int64_t i = 0; i < count; ++i) p[i] = whole[i];
}
// Sixteen pairs of bf16 at p: the first, the second of each pair.
inline Vec LoadPairFirst(const uint16_t* p) {
  const auto* pairs = reinterpret_cast<const __m256i*>(p);
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_loadu_si256(pairs), 16)),
          _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_loadu_si256(pairs + 1), 16))};
}
inline Vec LoadPairSecond(const uint16_t* p) {
  const auto* pairs = reinterpret_cast<const __m256i*>(p);
  const __m256i upper = _mm256_set1_epi32(static_cast<int>(0xffff0000U));
  return {_mm256_castsi256_ps(_mm256_and_si256(_mm256_loadu_si256(pairs), upper)),
          _mm256_castsi256_ps(_mm256_and_si256(_mm256_loadu_si256(pairs + 1), upper))};
}

// kCount k of sixteen columns in half precision, which wait in memory: a conversion takes eight of
// them from there in one operation, and from a register in two or three.
template <int kCount>
class HalfColumns {
 public:
  [[gnu::always_inline]] Vec At(int64_t k) const {
    const auto* eights = reinterpret_cast<const __m128i*>(halves_ + k);
    return {_mm256_cvtph_ps(_mm_load_si128(eights)), _mm256_cvtph_ps(_mm_load_si128(eights + 1))};
  }

 protected:
  // To be called when all halves are set: GCC 12 else keeps them in registers.
  [[gnu::always_inline]] void Settle() { asm("" : "+m"(halves_)); }
  alignas(32) __m256i halves_[kCount];
};

// A line of e4m3 [2][16][2]: four k of sixteen columns, each value / kFp8Unit: the bits, moved to
// where half precision has its exponent and mantissa, mean 2^-8 of the value there, denormals
// included.
constexpr float kFp8Unit = 256;
class Fp8Columns : public HalfColumns<4> {
 public:
  [[gnu::always_inline]] explicit Fp8Columns(const std::byte* line) {
    const __m256i fields = _mm256_set1_epi16(static_cast<int16_t>(0xbf80));
    for (int64_t pair = 0; pair < 2; ++pair) {
      const __m256i codes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(line) + pair);
      const __m256i first = _mm256_srai_epi16(_mm256_slli_epi16(codes, 8), 1);
      halves_[2 * pair] = _mm256_and_si256(first, fields);
      halves_[2 * pair + 1] = _mm256_and_si256(_mm256_srai_epi16(codes, 1), fields);
    }
    Settle();
  }
};

// The sixteen values of a 4-bit code in half precision, which all have a lower byte of zeros: their
// upper bytes.
struct FourBitTable {
  __m256i upper;
};
inline FourBitTable Int4Values() {
  return {_mm256_broadcastsi128_si256(_mm_setr_epi8(  // -8 ... 7
      -0x38, -0x39, -0x3a, -0x3b, -0x3c, -0x3e, -0x40, -0x44, 0, 0x3c, 0x40, 0x42, 0x44, 0x45, 0x46,
      0x47))};
}
inline FourBitTable Mxfp4Values() {
  return {_mm256_broadcastsi128_si256(_mm_setr_epi8(  // 0, 0.5, 1, 1.5, 2, 3, 4, 6, then negative
      0, 0x38, 0x3c, 0x3e, 0x40, 0x42, 0x44, 0x46, 0, -0x48, -0x44, -0x42, -0x40, -0x3e, -0x3c,
      -0x3a))};
}
// A line of sixteen words of 8 codes, low bits first: eight k of sixteen columns, which stand in
// the order 0, 8, 1, 9 ... 7, 15, in which a blend brings the same k of all of them together.
class FourBitColumns : public HalfColumns<8> {
 public:
  [[gnu::always_inline]] FourBitColumns(const std::byte* line, const FourBitTable& table) {
    const auto at = [&](int64_t byte) {
      return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(line + byte));
    };
    LookUp(_mm256_blend_epi16(at(0), at(30), 0xaa), table, halves_);
    LookUp(_mm256_blend_epi16(at(32), at(2), 0x55), table, halves_ + 4);
    Settle();
  }

 private:
  [[gnu::always_inline]] static void LookUp(__m256i codes, const FourBitTable& table, __m256i* of) {
    const __m256i low = _mm256_set1_epi8(15);
    const __m256i upper = _mm256_set1_epi16(static_cast<int16_t>(0xff00));
    const __m256i to_upper = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(-1, 0, -1, 2, -1, 4, -1, 6, -1, 8, -1, 10, -1, 12, -1, 14));
    const __m256i even = _mm256_shuffle_epi8(table.upper, _mm256_and_si256(codes, low));
    const __m256i odd =
        _mm256_shuffle_epi8(table.upper, _mm256_and_si256(_mm256_srli_epi16(codes, 4), low));
    of[0] = _mm256_shuffle_epi8(even, to_upper);
    of[1] = _mm256_shuffle_epi8(odd, to_upper);
    of[2] = _mm256_and_si256(even, upper);
    of[3] = _mm256_and_si256(odd, upper);
  }
};
// Scales of sixteen columns in the order of FourBitColumns: bf16, and 2^(byte - 127), 0 of 0.
inline Vec LoadBf16Scales(const uint16_t* p) {
  const __m128i lo = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  const __m128i hi = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8));
  return {WidenBf16(_mm_unpacklo_epi16(lo, hi)), WidenBf16(_mm_unpackhi_epi16(lo, hi))};
}
inline Vec LoadExponents(const std::byte* p) {
  const auto widen = [](__m128i bytes) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu8_epi32(bytes), 23));
  };
  const __m128i bytes =
      _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)),
                       _mm_setr_epi8(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15));
  return {widen(bytes), widen(_mm_srli_si128(bytes, 8))};
}
// Sums of sixteen columns from that order into their own.
inline Vec FourBitSums(Vec a) {
  const auto columns = [&](__m256 eights) {
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(eights), 0xd8));
  };
  return {columns(_mm256_shuffle_ps(a.lo, a.hi, 0x88)),
          columns(_mm256_shuffle_ps(a.lo, a.hi, 0xdd))};
}

inline Vec Add(Vec a, Vec b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
inline Vec Sub(Vec a, Vec b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
inline Vec Mul(Vec a, Vec b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
inline Vec Div(Vec a, Vec b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
// b where a lane of either is NaN.
inline Vec Max(Vec a, Vec b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
inline Vec Min(Vec a, Vec b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
// a * b + c and c - a * b, rounded once.
inline Vec Fma(Vec a, Vec b, Vec c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
inline Vec NegFma(Vec a, Vec b, Vec c) {
  return {_mm256_fnmadd_ps(a.lo, b.lo, c.lo), _mm256_fnmadd_ps(a.hi, b.hi, c.hi)};
}
inline Vec Round(Vec a) {
  constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(a.lo, kNearest), _mm256_round_ps(a.hi, kNearest)};
}
inline __m256 Scale2(__m256 x, __m256 n) {
  const __m256i whole = _mm256_cvtps_epi32(n);
  const __m256i half = _mm256_srai_epi32(whole, 1);
  const auto power = [](__m256i e) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(e, _mm256_set1_epi32(127)), 23));
  };
  return _mm256_mul_ps(_mm256_mul_ps(x, power(half)), power(_mm256_sub_epi32(whole, half)));
}
// x * 2^n for integral n within the range of two exponents.
inline Vec Scale2(Vec x, Vec n) { return {Scale2(x.lo, n.lo), Scale2(x.hi, n.hi)}; }

// Whether any lane of a is greater than that of b; a NaN is not.
inline bool AnyGreater(Vec a, Vec b) {
  const __m256 lo = _mm256_cmp_ps(a.lo, b.lo, _CMP_GT_OQ);
  const __m256 hi = _mm256_cmp_ps(a.hi, b.hi, _CMP_GT_OQ);
  return _mm256_movemask_ps(_mm256_or_ps(lo, hi)) != 0;
}

inline float FirstLane(Vec a) { return _mm256_cvtss_f32(a.lo); }
// Sum and maximum over the lanes: halves, quarters, pairs.
inline float SumLanes(Vec a) {
  const __m256 h = _mm256_add_ps(a.lo, a.hi);
  const __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  const __m128 p = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(p, _mm_movehdup_ps(p)));
}
inline float MaxLanes(Vec a) {
  const __m256 h = _mm256_max_ps(a.lo, a.hi);
  const __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  const __m128 p = _mm_max_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_max_ss(p, _mm_movehdup_ps(p)));
}

// Sums over the lanes of rows in two goes, so that what leaves the registers of a tile is half as
// much: FoldRows makes 8 partial sums of each row, and of sixteen rows' those, SumEachOf16Folded
// makes lane j the sum of row j, in the order of SumLanes.
template <int kRows>
inline void FoldRows(const Vec (&rows)[kRows], float* folded) {
  for (size_t i = 0; i < kRows; ++i)
    _mm256_storeu_ps(folded + 8 * i, _mm256_add_ps(rows[i].lo, rows[i].hi));
}
inline __m256 SumEachOf8Folded(const float* folded) {
  __m256 halves[4];  // of two rows, in four parts each
  for (size_t i = 0; i < 4; ++i) {
    const __m256 a = _mm256_loadu_ps(folded + 8 * i);
    const __m256 b = _mm256_loadu_ps(folded + 8 * (i + 4));
    halves[i] =
        _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
  }
  __m256 pairs[2];
  for (size_t i = 0; i < 2; ++i) {
    const __m256 a = halves[2 * i];
    const __m256 b = halves[2 * i + 1];
    pairs[i] = _mm256_add_ps(_mm256_shuffle_ps(a, b, 0x44), _mm256_shuffle_ps(a, b, 0xee));
  }
  return _mm256_add_ps(_mm256_shuffle_ps(pairs[0], pairs[1], 0x88),
                       _mm256_shuffle_ps(pairs[0], pairs[1], 0xdd));
}
inline Vec SumEachOf16Folded(const float* folded) {
  return {SumEachOf8Folded(folded), SumEachOf8Folded(folded + 64)};
}

// Not the intrinsic: it is no effect to GCC 12, which drops calls of what does nothing else.
inline void PrefetchLine(const void* p) {
  asm volatile("prefetcht0 %0" : : "m"(*static_cast<const char*>(p)));
}
// That a sum is in registers at this point: GCC 12 else keeps some of a tile's in memory, so that a
// chain of multiply-adds waits for stores too.
inline void KeepInRegister(Vec& a) { asm("" : "+x"(a.lo), "+x"(a.hi)); }
// What several multiply-adds use; here most of it is used once.
inline Vec LoadShared(const float* p) { return Load(p); }

// Rows and column groups of a GEMM micro-kernel that fill the 16 registers.
constexpr int kMaxTileRows = 6;
constexpr int kTileGroups = 1;
constexpr int kPairRows = 5;  // so few take two groups, whose sums do not fit: two weight streams
constexpr int kTallTileRows = kMaxTileRows;  // more of them do not fit
constexpr int kTallTileGroups = 1;
constexpr int kStreamRows = 1;  // so few rows: as many weight streams as registers allow
constexpr int kStreamGroups = 4;
// Block-scaled weights are widened for one tile of so few rows, beyond that through a panel of
// kPanelGroups groups of 8 KiB in L1. Two rows' block sums of four groups are in L1 themselves,
// which costs less than two groups at a time, whose chains wait for each other.
constexpr int kScaledStreamRows = 2;
constexpr int kScaledStreamGroups = 4;
constexpr int kScaledTileRows = 6;
constexpr int kScaledTileGroups = 1;
constexpr int kPanelRows = 6;
constexpr int kPanelGroups = 1;
// What attention keeps in registers at once: dot products, and runs of sums over values, each of
// kTileQueries at most. For kCachedQueries at most it widens keys and values where it uses them.
constexpr int kDotsAtOnce = 4;
constexpr int kSumsAtOnce = 4;
constexpr int kTileQueries = 4;
constexpr int kCachedQueries = 8;

}  // namespace
}  // namespace wideload::compute
