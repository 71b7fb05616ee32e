#include "runtime/text_stream.h"

#include <algorithm>

#include "base/error.h"
#include "runtime/text_limits.h"

namespace wideload::runtime {

StreamMatcher::StreamMatcher(std::string text) : text_(std::move(text)) {
  fallback_.assign(text_.size() + 1, 0);
  for (size_t i = 1; i < text_.size(); ++i) {
    size_t n = fallback_[i];
    while (n > 0 && text_[n] != text_[i]) n = fallback_[n];
    fallback_[i + 1] = text_[n] == text_[i] ? n + 1 : 0;
  }
}

bool StreamMatcher::Feed(char byte) {
  if (num_matched_ == text_.size()) num_matched_ = fallback_[num_matched_];
  while (num_matched_ > 0 && text_[num_matched_] != byte) num_matched_ = fallback_[num_matched_];
  if (text_[num_matched_] == byte) ++num_matched_;
  return num_matched_ == text_.size();
}

TextStream::TextStream(const tokenizer::Tokenizer& tokenizer, std::vector<std::string> stop,
                       bool skip_special)
    : detokenizer_(tokenizer, skip_special) {
  const std::string wrong = InvalidStop(stop);
  if (!wrong.empty()) Throw(ErrorKind::kInvalid, "a stop string {}", wrong);
  for (std::string& text : stop) stops_.emplace_back(std::move(text));
}

std::string TextStream::Feed(int32_t token) {
  return stopped_ ? "" : Take(detokenizer_.Push(token));
}

std::string TextStream::Flush() {
  if (stopped_) return "";
  std::string piece = Take(detokenizer_.Flush());
  return stopped_ ? piece : piece + Show(held_.size());
}

// The text that can be shown: all but what may be the beginning of a stop string.
std::string TextStream::Take(std::string_view piece) {
  for (const char byte : piece) {
    held_ += byte;
    if (!EndsStop(byte)) continue;
    stopped_ = true;
    size_t longest = 0;
    for (const StreamMatcher& stop : stops_)
      if (stop.num_matched() == stop.size()) longest = std::max(longest, stop.size());
    std::string last = Show(held_.size() - longest);
    held_.clear();
    return last;
  }
  size_t keep = 0;
  for (const StreamMatcher& stop : stops_) keep = std::max(keep, stop.num_matched());
  return Show(held_.size() - keep);
}

bool TextStream::EndsStop(char byte) {
  bool ends = false;
  for (StreamMatcher& stop : stops_) ends = stop.Feed(byte) || ends;
  return ends;
}

std::string TextStream::Show(size_t num_bytes) {
  std::string piece = held_.substr(0, num_bytes);
  held_.erase(0, num_bytes);
  shown_ += piece;
  return piece;
}

}  // namespace wideload::runtime
