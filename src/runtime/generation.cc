#include "runtime/generation.h"

#include <utility>

namespace wideload::runtime {

Generation::Generation(const tokenizer::Tokenizer* tokenizer, TextOptions options) {
  if (tokenizer != nullptr)
    text_.emplace(*tokenizer, std::move(options.stop), options.skip_special);
}

Delta Generation::Take(const Event& event) {
  if (has_ended()) return {};
  Delta delta{.token = event.token,
              .logprobs = event.logprobs,
              .finish = event.finish,
              .error = event.error,
              .num_cached_tokens = event.num_cached_tokens};
  if (event.token >= 0) {
    ++num_tokens_;
    // A token at which generation ends is no text.
    if (text_ && event.finish != FinishReason::kStop) delta.text = text_->Feed(event.token);
    if (text_ && text_->stopped()) delta.finish = FinishReason::kStop;
  }
  if (delta.is_last() && text_) delta.text += text_->Flush();
  // What was held back may have ended with a stop string.
  if (delta.finish == FinishReason::kLength && text_ && text_->stopped())
    delta.finish = FinishReason::kStop;
  finish_ = delta.finish;
  return delta;
}

Delta Generation::End(FinishReason reason, std::string error) {
  if (has_ended()) return {};
  finish_ = reason;
  return {.text = text_ ? text_->Flush() : "",
          .logprobs = {},
          .prompt_logprobs = {},
          .finish = reason,
          .error = std::move(error)};
}

}  // namespace wideload::runtime
