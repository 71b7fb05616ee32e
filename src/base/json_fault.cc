#include "base/json_fault.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "base/error.h"
#include "base/json.h"

namespace wideload {
namespace {

// A part of the library's message, and what it means in our words.
struct Wording {
  std::string_view part;
  std::string_view allowed;
};

// The first that is found decides.
constexpr std::array<Wording, 18> kWordings = {{
    {"ill-formed UTF-8", "a string in UTF-8"},
    {"control character", "control characters in a string written as \\n or \\u000a"},
    {"missing closing quote", "a string that ends with a double quote"},
    {"surrogate", "\\ud800 to \\udfff only in pairs, high before low"},
    {"'\\u' must be followed", "four hexadecimal digits after \\u"},
    {"forbidden character after backslash", "one of \"\\/bfnrtu after a backslash"},
    {"invalid number", "a number as JSON writes it: 12, -0.5, 1e-6"},
    {"while parsing object key", "a key in double quotes"},
    {"while parsing object separator", "':' after a key"},
    {"while parsing object", "',' or '}' after a member"},
    {"while parsing array", "',' or ']' after an element"},
    {"; expected end of input", "nothing after the document"},
    {"; expected string literal", "a key in double quotes"},
    {"; expected ':'", "':' after a key"},
    {"; expected '}'", "',' or '}' after a member"},
    {"; expected ']'", "',' or ']' after an element"},
    {"while parsing value",
     "a value: {, [, a string in double quotes, a number, true, false, null"},
    {"", "valid JSON"},
}};

std::string_view AllowedBy(std::string_view message) {
  return std::ranges::find_if(kWordings,
                              [&](const Wording& wording) {
                                return message.find(wording.part) != std::string_view::npos;
                              })
      ->allowed;
}

struct Place {
  int64_t line = 1;
  int64_t column = 1;
};

Place PlaceOf(std::string_view text, size_t index) {
  const std::string_view before = text.substr(0, index);
  const size_t line_end = before.rfind('\n');
  const size_t line_begin = line_end == std::string_view::npos ? 0 : line_end + 1;
  return {.line = 1 + std::ranges::count(before, '\n'),
          .column = static_cast<int64_t>(before.size() - line_begin) + 1};
}

bool IsWordByte(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.' || c == '-' || c == '+' ||
         c == '_';
}

// The word or the single byte at `index`, which is moved to its beginning.
std::string WordAt(std::string_view text, size_t& index) {
  constexpr size_t kMaxBytes = 40;
  if (!IsWordByte(text[index])) {
    const auto byte = static_cast<unsigned char>(text[index]);
    return byte < 0x80 ? DumpJson(Json(std::string(1, text[index])))
                       : fmt::format("the byte 0x{:02x}", byte);
  }
  size_t end = index + 1;
  while (end < text.size() && IsWordByte(text[end])) ++end;
  while (index > 0 && IsWordByte(text[index - 1])) --index;
  return DumpJson(Json(std::string(text.substr(index, std::min(end - index, kMaxBytes)))));
}

}  // namespace

void RefuseBrokenJson(std::string_view text, const std::string& source, size_t bytes_read,
                      const nlohmann::detail::exception& exception) {
  constexpr int kNumberOverflow = 406;  // the library's number of that error
  const std::string_view message = exception.what();
  if (text.find_first_not_of(" \t\r\n") == std::string_view::npos)
    Throw(ErrorKind::kCorrupt, "{}: not valid JSON: the text is empty", source);
  const bool is_end =
      bytes_read > text.size() || message.find("unexpected end of input") != std::string_view::npos;
  size_t index = std::clamp<size_t>(bytes_read, 1, text.size()) - 1;
  const std::string found = is_end ? "the end of the text" : WordAt(text, index);
  const Place at = PlaceOf(text, is_end ? text.size() : index);
  const std::string_view allowed =
      exception.id == kNumberOverflow ? "a number that 64 bits hold" : AllowedBy(message);
  Throw(ErrorKind::kCorrupt, "{}: not valid JSON at line {}, column {}: found {}; expected {}",
        source, at.line, at.column, found, allowed);
}

}  // namespace wideload
