// Text of one request as it is generated: complete characters only, ended by stop strings. Not
// thread-safe.
#pragma once

#include <string>
#include <vector>

#include "tokenizer/detokenizer.h"
#include "tokenizer/tokenizer.h"

namespace wideload::runtime {

class TextStream {
 public:
  // `tokenizer` must outlive the stream. Empty stop strings are not allowed. Special tokens are no
  // text if `skip_special`.
  TextStream(const tokenizer::Tokenizer& tokenizer, std::vector<std::string> stop,
             bool skip_special);

  // Takes the next token; returns text that can be shown now. Text that may be the beginning of a
  // stop string is held back until it is not. After a stop string was found (see stopped()) returns
  // nothing more; the stop string itself is not part of the text.
  std::string Feed(int32_t token);
  // The text still held back; call once at the end.
  std::string Flush();

  bool stopped() const { return stopped_; }
  const std::string& text() const { return shown_; }  // everything returned so far

 private:
  std::string Release(bool at_end);

  tokenizer::StreamingDetokenizer detokenizer_;
  std::vector<std::string> stop_;
  std::string held_;
  std::string shown_;
  bool stopped_ = false;
};

}  // namespace wideload::runtime
