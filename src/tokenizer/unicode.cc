#include "tokenizer/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <vector>

#include "base/error.h"

namespace wideload::tokenizer {
namespace {

struct LeadByte {
  size_t length;       // of the character that it starts; 0 for no lead byte
  uint8_t second_min;  // of the byte after it
  uint8_t second_max;
  uint8_t payload_mask;
};

LeadByte LeadByteOf(uint8_t byte) {
  if (byte < 0x80) return {1, 0, 0, 0x7F};
  if (byte < 0xC2) return {0, 0, 0, 0};
  if (byte < 0xE0) return {2, 0x80, 0xBF, 0x1F};
  if (byte == 0xE0) return {3, 0xA0, 0xBF, 0x0F};
  if (byte == 0xED) return {3, 0x80, 0x9F, 0x0F};  // no surrogates
  if (byte < 0xF0) return {3, 0x80, 0xBF, 0x0F};
  if (byte == 0xF0) return {4, 0x90, 0xBF, 0x07};
  if (byte < 0xF4) return {4, 0x80, 0xBF, 0x07};
  if (byte == 0xF4) return {4, 0x80, 0x8F, 0x07};  // up to U+10FFFF
  return {0, 0, 0, 0};
}

bool IsAscii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return (c & 0x80) == 0; });
}

uint8_t CombiningClass(int32_t code_point) {
  return static_cast<uint8_t>(utf8proc_get_property(code_point)->combining_class);
}

std::vector<int32_t> CanonicalDecomposition(std::string_view text) {
  std::vector<int32_t> result;
  result.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const Utf8Unit unit = Utf8At(text, i);
    std::array<int32_t, 32> parts;  // the longest canonical decomposition has 4
    int boundary_class = 0;
    const auto count = utf8proc_decompose_char(static_cast<int32_t>(unit.code_point), parts.data(),
                                               parts.size(), UTF8PROC_DECOMPOSE, &boundary_class);
    WIDELOAD_CHECK(count >= 0 && count <= static_cast<int>(parts.size()), "U+{:04X} gives {}",
                   unit.code_point, count);
    result.insert(result.end(), parts.begin(), parts.begin() + count);
    i += unit.length;
  }
  return result;
}

// utf8proc's own reordering is quadratic in the length of a run of combining marks.
void SortCombiningMarks(std::vector<int32_t>& code_points) {
  const auto is_starter = [](int32_t c) { return CombiningClass(c) == 0; };
  for (auto i = code_points.begin(); i != code_points.end();) {
    if (is_starter(*i)) {
      ++i;
      continue;
    }
    const auto end = std::find_if(i, code_points.end(), is_starter);
    std::stable_sort(i, end,
                     [](int32_t a, int32_t b) { return CombiningClass(a) < CombiningClass(b); });
    i = end;
  }
}

struct ByteAlphabet {
  std::array<uint32_t, 256> character;
  std::array<int16_t, 0x144> byte;  // -1: not of the alphabet
};

ByteAlphabet MakeByteAlphabet() {
  ByteAlphabet alphabet;
  alphabet.byte.fill(-1);
  uint32_t next_free = 0x100;
  for (uint32_t b = 0; b < 256; ++b) {
    const bool is_printable = (b > 0x20 && b < 0x7F) || (b > 0xA0 && b != 0xAD);
    const uint32_t character = is_printable ? b : next_free++;
    alphabet.character[b] = character;
    alphabet.byte[character] = static_cast<int16_t>(b);
  }
  return alphabet;
}

const ByteAlphabet& TheByteAlphabet() {
  static const ByteAlphabet alphabet = MakeByteAlphabet();
  return alphabet;
}

}  // namespace

Utf8Unit Utf8At(std::string_view text, size_t position) {
  const auto byte_at = [&](size_t i) { return static_cast<uint8_t>(text[position + i]); };
  const LeadByte lead = LeadByteOf(byte_at(0));
  if (lead.length == 0) return {.length = 1, .code_point = 0xFFFD};
  uint32_t code_point = byte_at(0) & lead.payload_mask;
  for (size_t i = 1; i < lead.length; ++i) {
    if (position + i == text.size())
      return {.length = i, .code_point = 0xFFFD, .is_truncated = true};
    const uint8_t min = i == 1 ? lead.second_min : 0x80;
    const uint8_t max = i == 1 ? lead.second_max : 0xBF;
    if (byte_at(i) < min || byte_at(i) > max) return {.length = i, .code_point = 0xFFFD};
    code_point = code_point << 6 | (byte_at(i) & 0x3F);
  }
  return {.length = lead.length, .code_point = code_point, .is_valid = true};
}

bool IsValidUtf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const Utf8Unit unit = Utf8At(text, i);
    if (!unit.is_valid) return false;
    i += unit.length;
  }
  return true;
}

std::string WithReplacements(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const Utf8Unit unit = Utf8At(text, i);
    result += unit.is_valid ? text.substr(i, unit.length) : kReplacementCharacter;
    i += unit.length;
  }
  return result;
}

void AppendUtf8(uint32_t code_point, std::string& text) {
  std::array<uint8_t, 4> bytes;
  const auto length = utf8proc_encode_char(static_cast<int32_t>(code_point), bytes.data());
  text.append(bytes.begin(), bytes.begin() + length);
}

std::string Nfc(std::string_view text) {
  if (IsAscii(text)) return std::string(text);
  std::vector<int32_t> code_points = CanonicalDecomposition(text);
  SortCombiningMarks(code_points);
  const auto count =
      utf8proc_normalize_utf32(code_points.data(), static_cast<ptrdiff_t>(code_points.size()),
                               static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
  WIDELOAD_CHECK(count >= 0, "utf8proc_normalize_utf32 gives {}", count);
  std::string result;
  result.reserve(text.size());
  for (ptrdiff_t i = 0; i < count; ++i)
    AppendUtf8(static_cast<uint32_t>(code_points[static_cast<size_t>(i)]), result);
  return result;
}

bool IsWhiteSpace(uint32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

bool IsWordCharacter(uint32_t c) {
  if (c == 0x200C || c == 0x200D) return true;
  // Other_Alphabetic outside L, M and Nl: circled and squared letters.
  if ((c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
      (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189))
    return true;
  const auto category = utf8proc_category(static_cast<int32_t>(c));
  return (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_NL) ||
         category == UTF8PROC_CATEGORY_PC;
}

uint32_t CharacterOfByte(uint8_t byte) { return TheByteAlphabet().character[byte]; }

std::string ToByteAlphabet(std::string_view bytes) {
  std::string text;
  for (const char c : bytes) AppendUtf8(CharacterOfByte(static_cast<uint8_t>(c)), text);
  return text;
}

std::optional<std::string> FromByteAlphabet(std::string_view text) {
  const ByteAlphabet& alphabet = TheByteAlphabet();
  std::string bytes;
  bytes.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const Utf8Unit unit = Utf8At(text, i);
    if (!unit.is_valid || unit.code_point >= alphabet.byte.size()) return std::nullopt;
    const int16_t byte = alphabet.byte[unit.code_point];
    if (byte < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(byte));
    i += unit.length;
  }
  return bytes;
}

}  // namespace wideload::tokenizer
