#include "grammar/utf8_ranges.h"

#include <algorithm>

namespace wideload::grammar {
namespace {

int Encode(uint32_t c, std::array<uint8_t, 4>& bytes) {
  const auto continuation = [c](int shift) {
    return static_cast<uint8_t>(0x80 | ((c >> shift) & 0x3F));
  };
  if (c < 0x80) {
    bytes = {static_cast<uint8_t>(c)};
    return 1;
  }
  if (c < 0x800) {
    bytes = {static_cast<uint8_t>(0xC0 | c >> 6), continuation(0)};
    return 2;
  }
  if (c < 0x10000) {
    bytes = {static_cast<uint8_t>(0xE0 | c >> 12), continuation(6), continuation(0)};
    return 3;
  }
  bytes = {static_cast<uint8_t>(0xF0 | c >> 18), continuation(12), continuation(6),
           continuation(0)};
  return 4;
}

// Both ends have the same number of bytes, or the range is cut so.
void Split(uint32_t first, uint32_t last, std::vector<ByteRanges>& result) {
  if (first > last) return;
  for (const uint32_t highest : {0x7FU, 0x7FFU, 0xD7FFU, 0xDFFFU, 0xFFFFU}) {
    if (first > highest || last <= highest) continue;
    Split(first, highest, result);
    Split(highest + 1, last, result);
    return;
  }
  if (first >= 0xD800 && last <= 0xDFFF) return;
  for (int num_last = 1; num_last < 4; ++num_last) {
    // The last bytes of both ends take all values, or the range is cut so.
    const uint32_t mask = (1U << (6 * num_last)) - 1;
    if (last < 0x80 || (first & ~mask) == (last & ~mask)) continue;
    if ((first & mask) != 0) {
      Split(first, first | mask, result);
      Split((first | mask) + 1, last, result);
      return;
    }
    if ((last & mask) != mask) {
      Split(first, (last & ~mask) - 1, result);
      Split(last & ~mask, last, result);
      return;
    }
  }
  std::array<uint8_t, 4> low{}, high{};
  ByteRanges ranges{.ranges = {}, .size = Encode(first, low)};
  Encode(last, high);
  for (size_t i = 0; i < 4; ++i) ranges.ranges[i] = {low[i], high[i]};
  result.push_back(ranges);
}

}  // namespace

std::vector<ByteRanges> Utf8Ranges(uint32_t first, uint32_t last) {
  std::vector<ByteRanges> result;
  Split(first, last, result);
  return result;
}

}  // namespace wideload::grammar
