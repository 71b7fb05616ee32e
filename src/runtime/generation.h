// What a request generates, as its reader sees it: tokens, text, and why it ends. The one place
// where all of that is decided: end-of-sequence tokens, stop strings, the length, cancellation, a
// deadline, and what the engine says against the request. Not thread-safe.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/request.h"
#include "runtime/text_stream.h"
#include "tokenizer/tokenizer.h"

namespace wideload::runtime {

class PromptLease;

// When a text ends, and what of it is shown.
struct TextOptions {
  std::vector<std::string> stop;  // generation ends before these; InvalidStop says what is allowed
  bool skip_special = true;       // special tokens are no text
};

// What came of a request since the last one.
struct Delta {
  int32_t token = -1;                  // the token generated, or -1
  std::string text;                    // that can be shown now; whole characters
  std::vector<TokenLogprob> logprobs;  // as Event
  // Of the prompt, with prompt_logprobs, in the first delta: of each position as `logprobs`, the
  // prompt's own token first. Empty of the first position, which nothing predicts.
  std::vector<std::vector<TokenLogprob>> prompt_logprobs;
  FinishReason finish = FinishReason::kNone;
  std::string error;              // with kError: why
  int64_t num_cached_tokens = 0;  // as Event; 0 where End made it
  // When the first iteration with the request began; of an EngineLoop. Its beginning: none did.
  std::chrono::steady_clock::time_point begun{};
  // The last one of a request with keeps_cache that has ended by its length, of an EngineLoop.
  std::shared_ptr<const PromptLease> lease{};

  bool is_last() const { return finish != FinishReason::kNone; }
};

class Generation {
 public:
  // `tokenizer` must outlive it; null: tokens only, no text. Errors: kInvalid for stop strings that
  // are not allowed.
  Generation(const tokenizer::Tokenizer* tokenizer, TextOptions options);

  // Takes what the engine says. When a stop string ends the request before the engine does, the
  // delta says kStop, and the caller cancels the request. After the last one gives no more.
  Delta Take(const Event& event);
  // Ends it for a reason that the engine does not know. The delta has the text still held back.
  Delta End(FinishReason reason, std::string error = {});

  bool has_ended() const { return finish_ != FinishReason::kNone; }
  FinishReason finish() const { return finish_; }
  int64_t num_tokens() const { return num_tokens_; }

 private:
  std::optional<TextStream> text_;
  FinishReason finish_ = FinishReason::kNone;
  int64_t num_tokens_ = 0;
};

}  // namespace wideload::runtime
