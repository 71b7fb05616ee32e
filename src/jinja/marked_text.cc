#include "jinja/marked_text.h"

#include <algorithm>

namespace wideload::jinja {

MarkedText::MarkedText(std::string text, bool is_plain) : text_(std::move(text)) {
  if (is_plain) Mark(0, text_.size());
}

void MarkedText::Mark(size_t begin, size_t end) {
  if (begin == end) return;
  if (!plain_.empty() && plain_.back().end == begin)
    plain_.back().end = end;
  else
    plain_.push_back({begin, end});
}

size_t MarkedText::FirstSpanEndingAfter(size_t position) const {
  const auto found = std::upper_bound(plain_.begin(), plain_.end(), position,
                                      [](size_t p, const Span& span) { return p < span.end; });
  return static_cast<size_t>(found - plain_.begin());
}

void MarkedText::Append(std::string_view text, bool is_plain) {
  const size_t begin = text_.size();
  text_ += text;
  if (is_plain) Mark(begin, text_.size());
}

void MarkedText::Append(const MarkedText& other, size_t begin, size_t end) {
  const size_t offset = text_.size();
  text_.append(other.text_, begin, end - begin);
  for (size_t i = other.FirstSpanEndingAfter(begin); i < other.plain_.size(); ++i) {
    const Span& span = other.plain_[i];
    if (span.begin >= end) break;
    Mark(std::max(span.begin, begin) - begin + offset, std::min(span.end, end) - begin + offset);
  }
}

MarkedText MarkedText::Slice(size_t begin, size_t end) const {
  MarkedText slice;
  slice.Append(*this, begin, end);
  return slice;
}

bool MarkedText::IsPlain(size_t position) const {
  const size_t i = FirstSpanEndingAfter(position);
  return i < plain_.size() && plain_[i].begin <= position;
}

}  // namespace wideload::jinja
