#include "tokenizer/code_points.h"

#include <algorithm>
#include <iterator>

#include "tokenizer/unicode.h"

namespace wideload::tokenizer {
namespace {

uint8_t FirstByteOf(uint32_t code_point) {
  std::string utf8;
  AppendUtf8(code_point, utf8);
  return static_cast<uint8_t>(utf8[0]);
}

std::bitset<256> FirstBytesOf(const CodePointSet& set) {
  std::bitset<256> bytes;
  for (const auto& [first, last] : set.ranges())
    for (size_t byte = FirstByteOf(first); byte <= FirstByteOf(last); ++byte) bytes.set(byte);
  return bytes;
}

}  // namespace

CodePointSet::CodePointSet(std::vector<Range> ranges) {
  const auto starts_before = [](const Range& a, const Range& b) { return a.first < b.first; };
  if (!std::is_sorted(ranges.begin(), ranges.end(), starts_before))
    std::sort(ranges.begin(), ranges.end(), starts_before);
  for (const Range& range : ranges) {
    if (!ranges_.empty() && range.first <= ranges_.back().last + 1)
      ranges_.back().last = std::max(ranges_.back().last, range.last);
    else
      ranges_.push_back(range);
  }
}

CodePointSet CodePointSet::Or(const CodePointSet& other) const {
  std::vector<Range> both;
  both.reserve(ranges_.size() + other.ranges_.size());
  std::merge(ranges_.begin(), ranges_.end(), other.ranges_.begin(), other.ranges_.end(),
             std::back_inserter(both),
             [](const Range& a, const Range& b) { return a.first < b.first; });
  return CodePointSet(std::move(both));
}

CodePointSet CodePointSet::Complement() const {
  std::vector<Range> gaps;
  uint32_t next = 0;
  for (const Range& range : ranges_) {
    if (range.first > next) gaps.push_back({next, range.first - 1});
    next = range.last + 1;
  }
  if (next <= kMaxCodePoint) gaps.push_back({next, kMaxCodePoint});
  return CodePointSet(std::move(gaps));
}

CodePointSet CodePointSet::And(const CodePointSet& other) const {
  return Complement().Or(other.Complement()).Complement();
}

bool CodePointSet::Contains(uint32_t code_point) const {
  const auto after =
      std::upper_bound(ranges_.begin(), ranges_.end(), code_point,
                       [](uint32_t c, const Range& range) { return c < range.first; });
  return after != ranges_.begin() && code_point <= std::prev(after)->last;
}

CharacterClass::CharacterClass(const CodePointSet& set) : first_bytes_(FirstBytesOf(set)) {
  // Most pages are empty or full and are shared.
  pages_.emplace_back();
  pages_.emplace_back().set();
  page_of_.fill(0);
  std::vector<uint16_t> own(page_of_.size(), 0);  // page -> its bits; 0: none yet
  for (const auto& [first, last] : set.ranges()) {
    for (uint32_t page = first >> 8; page <= last >> 8; ++page) {
      const uint32_t from = std::max(first, page << 8);
      const uint32_t to = std::min(last, page << 8 | 0xFF);
      if (to - from == 0xFF) {
        page_of_[page] = 1;
        continue;
      }
      if (own[page] == 0) {
        own[page] = static_cast<uint16_t>(pages_.size());
        page_of_[page] = own[page];
        pages_.emplace_back();
      }
      for (uint32_t c = from; c <= to; ++c) pages_[own[page]].set(c & 0xFF);
    }
  }
}

}  // namespace wideload::tokenizer
