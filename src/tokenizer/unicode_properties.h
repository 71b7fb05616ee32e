// Properties of characters: general category and script of Unicode 16.0, and what NFC needs of
// Unicode 9.0 (see tools/unicode_tables.py). Thread-safe.
#pragma once

#include <cstdint>
#include <string_view>

#include "tokenizer/code_points.h"

namespace wideload::tokenizer {

// Unicode's two letters.
enum class GeneralCategory : uint8_t {
  kLu,
  kLl,
  kLt,
  kLm,
  kLo,
  kMn,
  kMc,
  kMe,
  kNd,
  kNl,
  kNo,
  kPc,
  kPd,
  kPs,
  kPe,
  kPi,
  kPf,
  kPo,
  kSm,
  kSc,
  kSk,
  kSo,
  kZs,
  kZl,
  kZp,
  kCc,
  kCf,
  kCs,
  kCo,
  kCn,
};

// Of a code point up to U+10FFFF.
GeneralCategory CategoryOf(uint32_t code_point);

// The characters of a property as regular expressions name it: a general category ("Lu", "L",
// "Letter") or one of the scripts of unicode_tables.py ("Han"). Case, blanks, - and _ in `name` do
// not count. nullptr for other names.
const CodePointSet* PropertyNamed(std::string_view name);

// Canonical_Combining_Class.
uint8_t CombiningClassOf(uint32_t code_point);

// The canonical decomposition mapping: one step, not Hangul syllables. second is 0 where the
// mapping is one character; first is 0 where there is none.
struct Decomposition {
  uint32_t first = 0;
  uint32_t second = 0;
};
// Of a code point up to U+10FFFF; empty for one that has none.
Decomposition DecompositionOf(uint32_t code_point);

// The primary composite of two characters, not Hangul; 0 where there is none.
uint32_t CompositeOf(uint32_t first, uint32_t second);
// Whether CompositeOf(first, code_point) is a character for some first.
bool IsSecondOfComposite(uint32_t code_point);

}  // namespace wideload::tokenizer
