// Python's functions on strings, for filters and methods alike. Marks of plain text stay with the
// characters. Budgets are counted by `Runtime`.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "jinja/runtime.h"

namespace wideload::jinja {

enum class Side { kBoth, kLeft, kRight };

// Without white space, or without the characters of `characters`, at the sides named.
Value Stripped(Runtime& runtime, const Value& value, const std::optional<Value>& characters,
               Side side);
// str.upper.
Value Uppercase(Runtime& runtime, const Value& value);
// str.lower.
Value Lowercase(Runtime& runtime, const Value& value);
// The first character in title case, the others in lower case.
Value Capitalized(Runtime& runtime, const Value& value);
// At most `max_count` replacements, all when negative.
Value Replaced(Runtime& runtime, const Value& value, const MarkedText& from, const MarkedText& to,
               int64_t max_count);
// At `separator`, or at white space when null; at most `max_splits`, all when negative.
std::vector<Value> Split(Runtime& runtime, const MarkedText& text, const MarkedText* separator,
                         int64_t max_splits);
// The same from the right.
std::vector<Value> SplitFromRight(Runtime& runtime, const MarkedText& text,
                                  const MarkedText* separator, int64_t max_splits);
// str.splitlines.
std::vector<Value> Lines(Runtime& runtime, const MarkedText& text, bool keeps_ends);
// Filled with `fill` up to `width` characters.
Value Padded(Runtime& runtime, const Value& value, int64_t width, Side text_side,
             std::string_view fill = " ");
// The texts with the separator between them.
Value Joined(Runtime& runtime, const MarkedText& separator, const std::vector<Value>& texts);

}  // namespace wideload::jinja
