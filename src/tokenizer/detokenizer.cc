#include "tokenizer/detokenizer.h"

#include "tokenizer/unicode.h"

namespace wideload::tokenizer {

std::string StreamingDetokenizer::Push(int32_t id) {
  if (!tokenizer_->HasToken(id) || (skip_special_ && tokenizer_->IsSpecial(id))) return "";
  if (tokenizer_->IsByteToken(id)) {
    run_ += tokenizer_->TokenBytes(id);
    return "";
  }
  pending_ += TakeRun();
  if (has_tokens_) pending_ += tokenizer_->decoder().separator;
  has_tokens_ = true;
  pending_ += tokenizer_->TokenBytes(id);
  std::string text;
  size_t done = 0;
  while (done < pending_.size()) {
    const Utf8Unit unit = Utf8At(pending_, done);
    if (unit.is_truncated) break;
    text += unit.is_valid ? std::string_view(pending_).substr(done, unit.length)
                          : kReplacementCharacter;
    done += unit.length;
  }
  pending_.erase(0, done);
  return Stripped(std::move(text));
}

// The text of a run of byte tokens. Source: huggingface/tokenizers, decoders/byte_fallback.rs: one
// U+FFFD for each byte of a run that is no UTF-8 as a whole.
std::string StreamingDetokenizer::TakeRun() {
  std::string text;
  if (IsValidUtf8(run_)) {
    text = run_;
  } else {
    for (size_t i = 0; i < run_.size(); ++i) text += kReplacementCharacter;
  }
  run_.clear();
  return text;
}

std::string StreamingDetokenizer::Stripped(std::string text) {
  const std::string& stripped = tokenizer_->decoder().stripped;
  size_t begin = 0;
  while (may_strip_ > 0 && begin < text.size()) {
    const bool takes = std::string_view(text).substr(begin).starts_with(stripped);
    may_strip_ = takes ? may_strip_ - 1 : 0;
    if (takes) begin += stripped.size();
  }
  return text.substr(begin);
}

std::string StreamingDetokenizer::Flush() {
  std::string text = Stripped(WithReplacements(pending_ + TakeRun()));
  pending_.clear();
  has_tokens_ = false;
  may_strip_ = tokenizer_->decoder().max_stripped;
  return text;
}

}  // namespace wideload::tokenizer
