#include "tokenizer/unicode.h"

#include <algorithm>
#include <array>
#include <vector>

#include "tokenizer/code_points.h"
#include "tokenizer/unicode_properties.h"

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

// Hangul syllables are decomposed and composed by arithmetic. Source: Unicode 16, section 3.12.
constexpr uint32_t kSyllables = 0xAC00;
constexpr uint32_t kLeading = 0x1100;
constexpr uint32_t kVowels = 0x1161;
constexpr uint32_t kTrailing = 0x11A7;  // one before the first: no trailing consonant
constexpr uint32_t kNumLeading = 19;
constexpr uint32_t kNumVowels = 21;
constexpr uint32_t kNumTrailing = 28;
constexpr uint32_t kNumSyllables = kNumLeading * kNumVowels * kNumTrailing;

void AppendDecomposed(uint32_t c, std::vector<uint32_t>& result) {
  if (c - kSyllables < kNumSyllables) {
    const uint32_t index = c - kSyllables;
    result.push_back(kLeading + index / (kNumVowels * kNumTrailing));
    result.push_back(kVowels + index % (kNumVowels * kNumTrailing) / kNumTrailing);
    if (index % kNumTrailing != 0) result.push_back(kTrailing + index % kNumTrailing);
    return;
  }
  const Decomposition parts = DecompositionOf(c);
  if (parts.first == 0) return result.push_back(c);
  AppendDecomposed(parts.first, result);  // at most three deep
  if (parts.second != 0) AppendDecomposed(parts.second, result);
}

std::vector<uint32_t> CanonicalDecomposition(std::string_view text) {
  std::vector<uint32_t> result;
  result.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const Utf8Unit unit = Utf8At(text, i);
    AppendDecomposed(unit.code_point, result);
    i += unit.length;
  }
  return result;
}

void SortCombiningMarks(std::vector<uint32_t>& code_points) {
  const auto is_starter = [](uint32_t c) { return CombiningClassOf(c) == 0; };
  for (auto i = code_points.begin(); i != code_points.end();) {
    if (is_starter(*i)) {
      ++i;
      continue;
    }
    const auto end = std::find_if(i, code_points.end(), is_starter);
    std::stable_sort(
        i, end, [](uint32_t a, uint32_t b) { return CombiningClassOf(a) < CombiningClassOf(b); });
    i = end;
  }
}

uint32_t Composed(uint32_t first, uint32_t second) {
  if (first - kLeading < kNumLeading && second - kVowels < kNumVowels)
    return kSyllables + ((first - kLeading) * kNumVowels + (second - kVowels)) * kNumTrailing;
  const bool has_no_trailing =
      first - kSyllables < kNumSyllables && (first - kSyllables) % kNumTrailing == 0;
  if (has_no_trailing && second - kTrailing - 1 < kNumTrailing - 1)
    return first + (second - kTrailing);
  return CompositeOf(first, second);
}

// In place. Source: Unicode 16, section 3.11, the canonical composition algorithm.
void Compose(std::vector<uint32_t>& code_points) {
  size_t count = 0;           // written
  size_t starter = SIZE_MAX;  // index of the last starter written
  int last_class = -1;        // of what was written after it; -1: nothing
  for (const uint32_t c : code_points) {
    const int combining_class = CombiningClassOf(c);
    if (starter != SIZE_MAX && last_class < combining_class) {
      if (const uint32_t composite = Composed(code_points[starter], c); composite != 0) {
        code_points[starter] = composite;
        continue;
      }
    }
    if (combining_class == 0) {
      starter = count;
      last_class = -1;
    } else {
      last_class = combining_class;
    }
    code_points[count++] = c;
  }
  code_points.resize(count);
}

void AppendNfc(std::string_view text, std::string& result) {
  std::vector<uint32_t> code_points = CanonicalDecomposition(text);
  SortCombiningMarks(code_points);
  Compose(code_points);
  for (const uint32_t c : code_points) AppendUtf8(c, result);
}

// Characters that stay as they are and take no part in what stands before them: text can be
// normalised piece by piece, each of which begins with one of them.
CodePointSet NfcBoundaries() {
  constexpr uint32_t kNothingBehind = 0x30000;  // the last character that NFC changes is U+2FA1D
  std::vector<CodePointSet::Range> others;
  for (uint32_t c = 0; c < kNothingBehind; ++c) {
    std::vector<uint32_t> parts;
    AppendDecomposed(c, parts);
    const uint32_t first = parts[0];
    const bool is_joined = CombiningClassOf(first) != 0 || IsSecondOfComposite(first) ||
                           first - kVowels < kNumVowels || first - kTrailing < kNumTrailing;
    if (parts.size() > 1) Compose(parts);
    if (is_joined || parts != std::vector<uint32_t>{c}) others.push_back({c, c});
  }
  return CodePointSet(std::move(others)).Complement();
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
  const auto append = [&](uint32_t byte) { text += static_cast<char>(byte); };
  if (code_point < 0x80) return append(code_point);
  if (code_point < 0x800) {
    append(0xC0 | code_point >> 6);
  } else if (code_point < 0x10000) {
    append(0xE0 | code_point >> 12);
    append(0x80 | (code_point >> 6 & 0x3F));
  } else {
    append(0xF0 | code_point >> 18);
    append(0x80 | (code_point >> 12 & 0x3F));
    append(0x80 | (code_point >> 6 & 0x3F));
  }
  append(0x80 | (code_point & 0x3F));
}

std::string Nfc(std::string_view text) {
  if (IsAscii(text)) return std::string(text);
  static const CharacterClass boundaries(NfcBoundaries());
  std::string result;
  result.reserve(text.size());
  size_t copied = 0;   // of `text`
  size_t segment = 0;  // begin of what has no boundary inside it
  bool is_normal = true;
  const auto end_segment = [&](size_t end) {
    if (!is_normal) {
      result += text.substr(copied, segment - copied);
      AppendNfc(text.substr(segment, end - segment), result);
      copied = end;
    }
    segment = end;
    is_normal = true;
  };
  for (size_t i = 0; i < text.size();) {
    const Utf8Unit unit = Utf8At(text, i);
    if (boundaries.Contains(unit.code_point))
      end_segment(i);
    else
      is_normal = false;
    i += unit.length;
  }
  end_segment(text.size());
  return result += text.substr(copied);
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
  using enum GeneralCategory;
  const GeneralCategory category = CategoryOf(c);
  return category <= kNl || category == kPc;
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
