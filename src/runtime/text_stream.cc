#include "runtime/text_stream.h"

#include <algorithm>

#include "base/error.h"

namespace wideload::runtime {
namespace {

// Length of the longest end of `text` that a proper beginning of `stop` matches.
size_t PartialMatch(const std::string& text, const std::string& stop) {
  for (size_t n = std::min(text.size(), stop.size() - 1); n > 0; --n)
    if (text.compare(text.size() - n, n, stop, 0, n) == 0) return n;
  return 0;
}

}  // namespace

TextStream::TextStream(const tokenizer::Tokenizer& tokenizer, std::vector<std::string> stop,
                       bool skip_special)
    : detokenizer_(tokenizer, skip_special), stop_(std::move(stop)) {
  for (const std::string& s : stop_)
    if (s.empty())
      Throw(ErrorKind::kInvalid, "a stop string is empty; it must have at least one character");
}

std::string TextStream::Feed(int32_t token) {
  if (stopped_) return "";
  held_ += detokenizer_.Push(token);
  return Release(false);
}

std::string TextStream::Flush() {
  if (stopped_) return "";
  held_ += detokenizer_.Flush();
  return Release(true);
}

std::string TextStream::Release(bool at_end) {
  size_t found = std::string::npos;
  size_t keep = 0;
  for (const std::string& stop : stop_) {
    found = std::min(found, held_.find(stop));
    keep = std::max(keep, PartialMatch(held_, stop));
  }
  stopped_ = found != std::string::npos;
  const size_t show = stopped_ ? found : held_.size() - (at_end ? 0 : keep);
  std::string piece = held_.substr(0, show);
  held_.erase(0, stopped_ ? held_.size() : show);
  shown_ += piece;
  return piece;
}

}  // namespace wideload::runtime
