// Text of one request as it is generated: complete characters only, ended by stop strings. Not
// thread-safe.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/detokenizer.h"
#include "tokenizer/tokenizer.h"

namespace wideload::runtime {

// Finds a text in another that comes byte by byte. Source: Knuth, Morris, Pratt, "Fast pattern
// matching in strings" (1977).
class StreamMatcher {
 public:
  // `text` has at least one byte.
  explicit StreamMatcher(std::string text);
  // Returns whether the text ends with this byte.
  bool Feed(char byte);
  // Bytes of the text's beginning that have been fed last.
  size_t num_matched() const { return num_matched_; }
  size_t size() const { return text_.size(); }

 private:
  std::string text_;
  std::vector<size_t> fallback_;  // of so many bytes matched: how many still are after a mismatch
  size_t num_matched_ = 0;
};

class TextStream {
 public:
  // `tokenizer` must outlive the stream. Special tokens are no text if `skip_special`. Errors:
  // kInvalid for stop strings that are not allowed (InvalidStop).
  TextStream(const tokenizer::Tokenizer& tokenizer, std::vector<std::string> stop,
             bool skip_special);

  // Takes the next token; returns text that can be shown now. Text that may be the beginning of a
  // stop string is held back until it is not. After a stop string was found (see stopped()) returns
  // nothing more; the stop string itself is not part of the text. Of several, the one that ends
  // first counts. Takes time in proportion to the new text and the number of stop strings.
  std::string Feed(int32_t token);
  // The text still held back; call once at the end.
  std::string Flush();

  bool stopped() const { return stopped_; }
  const std::string& text() const { return shown_; }  // everything returned so far

 private:
  std::string Take(std::string_view piece);
  bool EndsStop(char byte);
  std::string Show(size_t num_bytes);

  tokenizer::StreamingDetokenizer detokenizer_;
  std::vector<StreamMatcher> stops_;
  std::string held_;
  std::string shown_;
  bool stopped_ = false;
};

}  // namespace wideload::runtime
