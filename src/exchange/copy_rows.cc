#include "exchange/copy_rows.h"

#include <emmintrin.h>

#include <cstring>

namespace wideload::exchange {

void CopyRow(std::byte* to, const std::byte* from, int64_t num_bytes) {
  std::memcpy(to, from, static_cast<size_t>(num_bytes));
}

void CopyRowNonTemporal(std::byte* to, const std::byte* from, int64_t num_bytes) {
  constexpr int64_t kLine = 64;  // a whole write-combining line at once
  const int64_t lines_bytes = num_bytes / kLine * kLine;
  for (int64_t i = 0; i < lines_bytes; i += kLine) {
    const auto* source = reinterpret_cast<const __m128i*>(from + i);
    auto* target = reinterpret_cast<__m128i*>(to + i);
    const __m128i a = _mm_loadu_si128(source);
    const __m128i b = _mm_loadu_si128(source + 1);
    const __m128i c = _mm_loadu_si128(source + 2);
    const __m128i d = _mm_loadu_si128(source + 3);
    _mm_stream_si128(target, a);
    _mm_stream_si128(target + 1, b);
    _mm_stream_si128(target + 2, c);
    _mm_stream_si128(target + 3, d);
  }
  std::memcpy(to + lines_bytes, from + lines_bytes, static_cast<size_t>(num_bytes - lines_bytes));
}

void FenceStores() { _mm_sfence(); }

}  // namespace wideload::exchange
