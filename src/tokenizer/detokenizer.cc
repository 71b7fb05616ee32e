#include "tokenizer/detokenizer.h"

#include "base/error.h"
#include "tokenizer/unicode.h"

namespace wideload::tokenizer {

std::string StreamingDetokenizer::Push(int32_t id) {
  if (!tokenizer_->HasToken(id))
    Throw(ErrorKind::kInvalid, "id {} has no token; ids lie in [0, {}]", id,
          tokenizer_->NumIds() - 1);
  if (has_tokens_) pending_ += tokenizer_->Separator();
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
  return text;
}

std::string StreamingDetokenizer::Flush() {
  std::string text = WithReplacements(pending_);
  pending_.clear();
  has_tokens_ = false;
  return text;
}

}  // namespace wideload::tokenizer
