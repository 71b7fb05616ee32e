// Text that remembers which of its bytes are plain: come from a message or another value of the
// caller, not from the template. Plain bytes never become special tokens. Values, not thread-safe.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace wideload::jinja {

class MarkedText {
 public:
  // Bytes [begin, end).
  struct Span {
    size_t begin = 0;
    size_t end = 0;
  };

  MarkedText() = default;
  // `text` must be valid UTF-8; so is every slice of it that this module makes.
  MarkedText(std::string text, bool is_plain);

  const std::string& text() const { return text_; }
  size_t size() const { return text_.size(); }
  // Ordered, disjoint, not touching, not empty: the plain bytes.
  const std::vector<Span>& plain() const { return plain_; }
  // Bytes of memory that it takes.
  size_t footprint() const { return text_.size() + plain_.size() * sizeof(Span); }

  // At the end, with its marks.
  void Append(std::string_view text, bool is_plain);
  void Append(const MarkedText& other) { Append(other, 0, other.size()); }
  // Bytes [begin, end) of `other`, which must not be this text.
  void Append(const MarkedText& other, size_t begin, size_t end);
  // Bytes [begin, end), with their marks.
  MarkedText Slice(size_t begin, size_t end) const;
  // Whether the byte at `position` (inside the text) is plain.
  bool IsPlain(size_t position) const;

 private:
  size_t FirstSpanEndingAfter(size_t position) const;
  void Mark(size_t begin, size_t end);

  std::string text_;
  std::vector<Span> plain_;
};

}  // namespace wideload::jinja
