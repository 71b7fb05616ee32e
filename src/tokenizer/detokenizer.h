// Turns a stream of token ids into text, character by character. One stream, one thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "tokenizer/tokenizer.h"

namespace wideload::tokenizer {

// The pieces that Push and Flush return, joined, are Tokenizer::Decode of all ids pushed.
class StreamingDetokenizer {
 public:
  // Does not own `tokenizer`, which must outlive it. Special tokens give no text if `skip_special`.
  explicit StreamingDetokenizer(const Tokenizer& tokenizer, bool skip_special = false)
      : tokenizer_(&tokenizer),
        skip_special_(skip_special),
        may_strip_(tokenizer.decoder().max_stripped) {}

  // What `id` completes: whole characters only, often nothing within one; with byte fallback what
  // a run of byte tokens means is known when another token follows. Bytes that cannot become a
  // character are U+FFFD. An id without a token gives nothing.
  std::string Push(int32_t id);

  // The rest, U+FFFD for a character that was never completed; then the stream starts anew.
  std::string Flush();

 private:
  std::string TakeRun();
  std::string Stripped(std::string text);

  const Tokenizer* tokenizer_;
  bool skip_special_;
  int64_t may_strip_;    // characters that may yet be taken from the begin of the text
  std::string pending_;  // the begin of a character, at most 3 bytes between calls
  std::string run_;      // of the byte tokens pushed last
  bool has_tokens_ = false;
};

}  // namespace wideload::tokenizer
