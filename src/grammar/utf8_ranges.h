// Ranges of characters as ranges of the bytes of their UTF-8. Pure.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace wideload::grammar {

// All sequences of one byte out of each range, in order.
struct ByteRanges {
  // Bytes first to last.
  struct Range {
    uint8_t first = 0, last = 0;
  };
  std::array<Range, 4> ranges;
  int size = 0;  // of `ranges`
};

// The characters first to last, each in one of the results; without surrogates. Source: the method
// of "UTF-8 automata", as RE2 and Rust's utf8-ranges have it.
std::vector<ByteRanges> Utf8Ranges(uint32_t first, uint32_t last);

}  // namespace wideload::grammar
