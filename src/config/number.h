// Numbers as users write them, on a command line or in a file. Pure.
#pragma once

#include <limits>
#include <string>
#include <string_view>

namespace wideload::config {

// The finite numbers from min to max. An end that is excluded is none of them.
struct Limits {
  double min = -std::numeric_limits<double>::infinity();  // exact: an integer below 2^53
  double max = std::numeric_limits<double>::infinity();
  bool min_excluded = false;
  bool max_excluded = false;
};

// "0 or more", "0.1 to 86400", "above 0 and at most 1"; "" without limits.
std::string LimitsText(const Limits& limits);

// What a T within the limits can be, for a message: LimitsText, but for integers both ends, those
// of the type where the limits have none: "1 to 2147483647"; "a finite number" for a double without
// limits. T, here and below: int32_t, int64_t, uint64_t or double.
template <class T>
std::string AllowedNumbers(const Limits& limits);

// What such a T is for a help text: "INT: 0 or more", "FLOAT".
template <class T>
std::string NumberKind(const Limits& limits);

// The number that all of `text` is, in decimal. Errors: kInvalid "`name` is `text`; allowed: ..."
// for what is no number, not finite, or not within the limits.
template <class T>
T ParseNumber(std::string_view name, std::string_view text, const Limits& limits);

}  // namespace wideload::config
