// Sets of characters. CodePointSet is made for set algebra, CharacterClass for asking. Immutable
// but by assignment; thread-safe.
#pragma once

#include <array>
#include <bitset>
#include <cstdint>
#include <vector>

namespace wideload::tokenizer {

// The last of Unicode.
inline constexpr uint32_t kMaxCodePoint = 0x10FFFF;

class CodePointSet {
 public:
  // Code points first to last.
  struct Range {
    uint32_t first;
    uint32_t last;

    bool operator==(const Range&) const = default;
  };

  CodePointSet() = default;
  // In any order, overlapping or not; first <= last <= kMaxCodePoint.
  explicit CodePointSet(std::vector<Range> ranges);

  // Those of either.
  CodePointSet Or(const CodePointSet& other) const;
  // Those of both.
  CodePointSet And(const CodePointSet& other) const;
  // All others up to kMaxCodePoint.
  CodePointSet Complement() const;
  bool Contains(uint32_t code_point) const;  // O(log n)

  // Sorted, neither overlapping nor touching.
  const std::vector<Range>& ranges() const { return ranges_; }
  bool operator==(const CodePointSet&) const = default;

 private:
  std::vector<Range> ranges_;
};

// The membership of a CodePointSet as a table of two levels.
class CharacterClass {
 public:
  // Its members are those of the set.
  explicit CharacterClass(const CodePointSet& set);

  // Whether a byte below 0x80, which is a character, is a member.
  bool ContainsAscii(uint8_t byte) const { return pages_[page_of_[0]][byte]; }
  // Whether a code point up to kMaxCodePoint is a member.
  bool Contains(uint32_t code_point) const {
    return pages_[page_of_[code_point >> 8]][code_point & 0xFF];
  }
  // The bytes that the UTF-8 of a member begins with.
  const std::bitset<256>& first_bytes() const { return first_bytes_; }

 private:
  std::array<uint16_t, (kMaxCodePoint >> 8) + 1> page_of_;
  std::vector<std::bitset<256>> pages_;
  std::bitset<256> first_bytes_;
};

}  // namespace wideload::tokenizer
