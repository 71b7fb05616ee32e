#include "jinja/python_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <span>

#include "jinja/python_tables.h"
#include "tokenizer/unicode.h"

namespace wideload::jinja {
namespace {

bool IsIn(std::span<const CodeRange> ranges, uint32_t code_point) {
  const auto after = std::upper_bound(ranges.begin(), ranges.end(), code_point,
                                      [](uint32_t c, const CodeRange& r) { return c < r.first; });
  return after != ranges.begin() && std::prev(after)->last >= code_point;
}

const CaseRange* Find(std::span<const CaseRange> ranges, uint32_t code_point) {
  const auto after = std::upper_bound(ranges.begin(), ranges.end(), code_point,
                                      [](uint32_t c, const CaseRange& r) { return c < r.first; });
  if (after == ranges.begin()) return nullptr;
  const CaseRange& range = *std::prev(after);
  const bool is_in = code_point <= range.last && (code_point - range.first) % range.stride == 0;
  return is_in ? &range : nullptr;
}

// Appends what `map` has for the character; false when it has nothing.
bool AppendMapped(const CaseMap& map, uint32_t code_point, std::string& text) {
  if (const CaseRange* range = Find(map.ranges, code_point)) {
    const auto mapped = static_cast<int32_t>(code_point) + range->delta;
    tokenizer::AppendUtf8(static_cast<uint32_t>(mapped), text);
    return true;
  }
  const auto special =
      std::lower_bound(map.special.begin(), map.special.end(), code_point,
                       [](const SpecialCase& entry, uint32_t c) { return entry.code_point < c; });
  if (special == map.special.end() || special->code_point != code_point) return false;
  text += special->text;
  return true;
}

}  // namespace

bool IsSpace(uint32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

bool IsPrintable(uint32_t code_point) { return IsIn(kPrintable, code_point); }
bool IsAlpha(uint32_t code_point) { return IsIn(kAlpha, code_point); }
bool IsDecimal(uint32_t code_point) { return IsIn(kDecimal, code_point); }
bool IsDigit(uint32_t code_point) { return IsIn(kDigit, code_point); }
bool IsNumeric(uint32_t code_point) { return IsIn(kNumeric, code_point); }
bool IsLower(uint32_t code_point) { return Find(kLower, code_point) != nullptr; }
bool IsUpper(uint32_t code_point) { return Find(kUpper, code_point) != nullptr; }
bool IsCased(uint32_t code_point) {
  return IsLower(code_point) || IsUpper(code_point) || IsIn(kTitleLetters, code_point);
}

void AppendUpper(uint32_t code_point, std::string& text) {
  if (!AppendMapped(kToUpper, code_point, text)) tokenizer::AppendUtf8(code_point, text);
}
void AppendLower(uint32_t code_point, std::string& text) {
  if (!AppendMapped(kToLower, code_point, text)) tokenizer::AppendUtf8(code_point, text);
}
void AppendTitle(uint32_t code_point, std::string& text) {
  if (!AppendMapped(kToTitle, code_point, text)) AppendUpper(code_point, text);
}

size_t NumSpaceBytesAtBegin(std::string_view text) {
  size_t position = 0;
  while (position < text.size()) {
    const tokenizer::Utf8Unit unit = tokenizer::Utf8At(text, position);
    if (!IsSpace(unit.code_point)) break;
    position += unit.length;
  }
  return position;
}

size_t NumSpaceBytesAtEnd(std::string_view text) {
  size_t end = text.size();
  while (end > 0) {
    size_t begin = 0;
    if (!IsSpace(CodePointBefore(text, end, &begin))) break;
    end = begin;
  }
  return text.size() - end;
}

size_t FindFirst(std::string_view text, std::string_view what, size_t from) {
  if (from > text.size()) return std::string_view::npos;
  const void* found = ::memmem(text.data() + from, text.size() - from, what.data(), what.size());
  if (found == nullptr) return std::string_view::npos;
  return static_cast<size_t>(static_cast<const char*>(found) - text.data());
}

size_t FindLast(std::string_view text, std::string_view what) {
  if (what.empty()) return text.size();
  const std::vector<size_t> places = FindFromRight(text, what, 1);
  return places.empty() ? std::string_view::npos : places[0];
}

std::vector<size_t> FindFromRight(std::string_view text, std::string_view what,
                                  int64_t max_places) {
  const std::string reversed(text.rbegin(), text.rend());
  const std::string pattern(what.rbegin(), what.rend());
  std::vector<size_t> places;
  size_t from = 0;
  while (max_places < 0 || static_cast<int64_t>(places.size()) < max_places) {
    const size_t found = FindFirst(reversed, pattern, from);
    if (found == std::string_view::npos) break;
    from = found + what.size();
    places.push_back(text.size() - from);
  }
  return places;
}

size_t NumCodePoints(std::string_view text) {
  return static_cast<size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<uint8_t>(c) & 0xC0) != 0x80; }));
}

size_t ByteOfCodePoint(std::string_view text, size_t index) {
  size_t position = 0;
  for (; index > 0 && position < text.size(); --index)
    position += tokenizer::Utf8At(text, position).length;
  return position;
}

uint32_t CodePointBefore(std::string_view text, size_t position, size_t* begin) {
  size_t start = position - 1;
  while (start > 0 && (static_cast<uint8_t>(text[start]) & 0xC0) == 0x80) --start;
  *begin = start;
  return tokenizer::Utf8At(text, start).code_point;
}

std::string FloatText(double number) {
  if (std::isnan(number)) return "nan";
  if (std::isinf(number)) return number > 0 ? "inf" : "-inf";
  // "d.ddde-07": the digits and the exponent, to be laid out as Python does.
  char buffer[40];
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), std::abs(number),
                                 std::chars_format::scientific);
  const std::string_view text(buffer, static_cast<size_t>(end.ptr - buffer));
  const size_t e = text.find('e');
  std::string digits(1, text[0]);
  if (e > 2) digits += text.substr(2, e - 2);
  const int exponent = std::atoi(std::string(text.substr(e + 1)).c_str());
  const auto num_digits = static_cast<int>(digits.size());
  const std::string sign = std::signbit(number) ? "-" : "";
  if (exponent < -4 || exponent >= 16) {
    if (num_digits > 1) digits.insert(1, ".");
    return fmt::format("{}{}e{}{:02}", sign, digits, exponent < 0 ? '-' : '+', std::abs(exponent));
  }
  if (exponent < 0)
    return sign + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  if (num_digits <= exponent + 1)
    return sign + digits + std::string(static_cast<size_t>(exponent + 1 - num_digits), '0') + ".0";
  return sign + digits.insert(static_cast<size_t>(exponent + 1), ".");
}

}  // namespace wideload::jinja
