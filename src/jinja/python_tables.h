// Tables of characters for python_text.cc, made by tools/python_text_tables.py.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace wideload::jinja {

// Code points first to last.
struct CodeRange {
  uint32_t first;
  uint32_t last;
};

// Every `stride`-th character from first to last changes by `delta`.
struct CaseRange {
  uint32_t first;
  uint32_t last;
  uint32_t stride;
  int32_t delta;
};

// A character that becomes several.
struct SpecialCase {
  uint32_t code_point;
  std::string_view text;
};

// What characters become in another case.
struct CaseMap {
  std::span<const CaseRange> ranges;
  std::span<const SpecialCase> special;
};

// Ordered.
extern const std::span<const CodeRange> kPrintable, kAlpha, kDecimal, kDigit, kNumeric,
    kTitleLetters;
extern const std::span<const CaseRange> kLower, kUpper;  // without change
extern const CaseMap kToUpper, kToLower;
extern const CaseMap kToTitle;  // where it differs from kToUpper

}  // namespace wideload::jinja
