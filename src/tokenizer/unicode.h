// UTF-8, NFC and the character classes that tokenizer.json names. Pure functions, thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace wideload::tokenizer {

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

// What stands at one place of a byte string.
struct Utf8Unit {
  size_t length = 0;  // bytes of the character, or of the maximal ill-formed subpart (at least 1)
  uint32_t code_point = 0;  // 0xFFFD when not well-formed
  bool is_valid = false;
  bool is_truncated = false;  // ill-formed only because the text ends within the character
};

// The unit at `position`, which must be inside `text`. Source: Unicode 15, table 3-7 (well-formed
// UTF-8 byte sequences) and section 3.9 (maximal subpart).
Utf8Unit Utf8At(std::string_view text, size_t position);

// Whether the bytes are UTF-8 without overlong forms and surrogates.
bool IsValidUtf8(std::string_view text);

// `text` with each maximal ill-formed subpart replaced by U+FFFD.
std::string WithReplacements(std::string_view text);

// Appends `code_point` (a Unicode scalar value) as UTF-8.
void AppendUtf8(uint32_t code_point, std::string& text);

// Normalisation form C of well-formed UTF-8; linear but for sorting each run of combining marks.
std::string Nfc(std::string_view text);

bool IsWhiteSpace(uint32_t code_point);     // property White_Space
bool IsWordCharacter(uint32_t code_point);  // \w of UTS 18: Alphabetic, M, Nd, Pc, Join_Control

// GPT-2's byte alphabet: a printable character for each of the 256 byte values.
// Source: openai/gpt-2, encoder.py, bytes_to_unicode.
uint32_t CharacterOfByte(uint8_t byte);
// Each byte as the character that stands for it.
std::string ToByteAlphabet(std::string_view bytes);
// The bytes that `text` stands for; nothing when a character is not of the alphabet.
std::optional<std::string> FromByteAlphabet(std::string_view text);

}  // namespace wideload::tokenizer
