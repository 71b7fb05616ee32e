// What Python's str knows of characters and numbers: white space, case, printable or not, digits.
// Pure functions on valid UTF-8; Unicode 14, as Python 3.11. Thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace wideload::jinja {

bool IsSpace(uint32_t code_point);      // str.isspace
bool IsPrintable(uint32_t code_point);  // str.isprintable
bool IsAlpha(uint32_t code_point);      // str.isalpha
bool IsDecimal(uint32_t code_point);    // str.isdecimal
bool IsDigit(uint32_t code_point);      // str.isdigit
bool IsNumeric(uint32_t code_point);    // str.isnumeric
bool IsLower(uint32_t code_point);      // str.islower of one character
bool IsUpper(uint32_t code_point);
bool IsCased(uint32_t code_point);  // lower, upper or title case

// Append the character in the other case: one to three characters.
void AppendUpper(uint32_t code_point, std::string& text);
// In lower case, which may be several characters.
void AppendLower(uint32_t code_point, std::string& text);
// In title case, likewise.
void AppendTitle(uint32_t code_point, std::string& text);

// How many bytes of white space `text` begins or ends with.
size_t NumSpaceBytesAtBegin(std::string_view text);
// The same at the end.
size_t NumSpaceBytesAtEnd(std::string_view text);

// Where `what` begins in `text` at or after `from`, or the last time; npos when it does not. In
// time linear in both, which std::string does not promise.
size_t FindFirst(std::string_view text, std::string_view what, size_t from = 0);
// The last place, likewise.
size_t FindLast(std::string_view text, std::string_view what);
// Where `what`, not empty, begins in `text`, from the right, without overlaps; the last place
// first. At most `max_places`, all when negative.
std::vector<size_t> FindFromRight(std::string_view text, std::string_view what, int64_t max_places);

// Of valid UTF-8.
size_t NumCodePoints(std::string_view text);
// The byte at which the code point `index` begins; the size of the text when it has fewer.
size_t ByteOfCodePoint(std::string_view text, size_t index);
// The code point before `position`, which must not be 0; *begin is where it begins.
uint32_t CodePointBefore(std::string_view text, size_t position, size_t* begin);

// Python's repr() of a float: the shortest digits that give the same number back.
std::string FloatText(double number);

}  // namespace wideload::jinja
