// Turns a stream of token ids into text, character by character. One stream, one thread.
#pragma once

#include <cstdint>
#include <string>

#include "tokenizer/tokenizer.h"

namespace wideload::tokenizer {

// The pieces that Push and Flush return, joined, are Tokenizer::Decode of all ids pushed.
class StreamingDetokenizer {
 public:
  // Does not own `tokenizer`, which must outlive it.
  explicit StreamingDetokenizer(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}

  // What `id` completes: whole characters only, often nothing within one. Bytes that cannot become
  // a character are U+FFFD. Errors: kInvalid for an id without a token; the stream is unchanged.
  std::string Push(int32_t id);

  // The rest, U+FFFD for a character that was never completed; then the stream starts anew.
  std::string Flush();

 private:
  const Tokenizer* tokenizer_;
  std::string pending_;  // the begin of a character, at most 3 bytes between calls
  bool has_tokens_ = false;
};

}  // namespace wideload::tokenizer
