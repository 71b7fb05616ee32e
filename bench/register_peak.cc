#include "register_peak.h"

#include <immintrin.h>

namespace wideload::bench {
namespace {

// Enough independent chains for two units of up to six cycles latency.
constexpr int kChains = 12;

struct TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

}  // namespace

double SseMulAddPeak(int64_t rounds, float* sink) {
  __m128 sums[kChains];
  for (auto& s : sums) s = _mm_set1_ps(1.0F);
  __m128 factor = _mm_set1_ps(1e-3F);
  for (int64_t i = 0; i < rounds; ++i) {
    // Opaque to the compiler, so that the products are not hoisted.
    asm volatile("" : "+x"(factor));
#pragma GCC unroll 12
    for (auto& s : sums) s = _mm_add_ps(_mm_mul_ps(factor, factor), s);
  }
  for (const auto& s : sums) *sink += _mm_cvtss_f32(s);
  return static_cast<double>(rounds) * kChains * 8;
}

double Avx2FmaPeak(int64_t rounds, float* sink) {
  __m256 sums[kChains];
  for (auto& s : sums) s = _mm256_set1_ps(1.0F);
  __m256 factor = _mm256_set1_ps(1e-3F);
  for (int64_t i = 0; i < rounds; ++i) {
    asm volatile("" : "+x"(factor));
#pragma GCC unroll 12
    for (auto& s : sums) s = _mm256_fmadd_ps(factor, factor, s);
  }
  for (const auto& s : sums) *sink += _mm256_cvtss_f32(s);
  return static_cast<double>(rounds) * kChains * 16;
}

double Avx512FmaPeak(int64_t rounds, float* sink) {
  __m512 sums[kChains];
  for (auto& s : sums) s = _mm512_set1_ps(1.0F);
  __m512 factor = _mm512_set1_ps(1e-3F);
  for (int64_t i = 0; i < rounds; ++i) {
    asm volatile("" : "+v"(factor));
#pragma GCC unroll 12
    for (auto& s : sums) s = _mm512_fmadd_ps(factor, factor, s);
  }
  for (const auto& s : sums) *sink += _mm512_cvtss_f32(s);
  return static_cast<double>(rounds) * kChains * 32;
}

double Avx512Bf16Peak(int64_t rounds, float* sink) {
  __m512 sums[kChains];
  for (auto& s : sums) s = _mm512_set1_ps(1.0F);
  __m512i factor = _mm512_set1_epi32(0x3a833a83);
  for (int64_t i = 0; i < rounds; ++i) {
    asm volatile("" : "+v"(factor));
    const auto pairs = reinterpret_cast<__m512bh>(factor);
#pragma GCC unroll 12
    for (auto& s : sums) s = _mm512_dpbf16_ps(s, pairs, pairs);
  }
  for (const auto& s : sums) *sink += _mm512_cvtss_f32(s);
  return static_cast<double>(rounds) * kChains * 64;
}

double AmxBf16Peak(int64_t rounds, float* sink) {
  const TileConfig config;
  asm volatile("ldtilecfg %0" : : "m"(config));
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  for (int64_t i = 0; i < rounds; ++i) {
    _tile_dpbf16ps(0, 4, 5);
    _tile_dpbf16ps(1, 4, 5);
    _tile_dpbf16ps(2, 4, 5);
    _tile_dpbf16ps(3, 4, 5);
  }
  alignas(64) float tile[256];
  _tile_stored(0, tile, 64);
  asm volatile("" : : : "memory");
  *sink += tile[0];
  _tile_release();
  return static_cast<double>(rounds) * 4 * 16 * 16 * 64;
}

}  // namespace wideload::bench
