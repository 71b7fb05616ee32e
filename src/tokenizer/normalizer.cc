#include "tokenizer/normalizer.h"

#include "tokenizer/unicode.h"

namespace wideload::tokenizer {
namespace {

void AppendReplaced(const NormalizerStep& step, std::string_view text, RegexScratch& scratch,
                    std::string& result) {
  size_t done = 0;
  if (step.pattern) {
    for (const TextRange& match : step.pattern->FindAll(text, scratch)) {
      result += text.substr(done, match.begin - done);
      result += step.content;
      done = match.end;
    }
  }
  result += text.substr(done);
}

MarkedText Prepended(const std::string& prefix, const MarkedText& text) {
  MarkedText result{.text = prefix + text.text, .plain = text.plain};
  for (TextRange& plain : result.plain) {
    plain.begin += prefix.size();
    plain.end += prefix.size();
  }
  return result;
}

MarkedText ChangedByStretch(const NormalizerStep& step, const MarkedText& text,
                            RegexScratch& scratch) {
  MarkedText result;
  const auto append = [&](size_t begin, size_t end) {
    const std::string_view stretch = std::string_view(text.text).substr(begin, end - begin);
    if (step.kind == NormalizerStep::Kind::kNfc)
      result.text += Nfc(stretch);
    else
      AppendReplaced(step, stretch, scratch, result.text);
  };
  size_t done = 0;
  for (const TextRange& plain : text.plain) {
    append(done, plain.begin);
    const size_t marked_from = result.text.size();
    append(plain.begin, plain.end);
    result.plain.push_back({marked_from, result.text.size()});
    done = plain.end;
  }
  append(done, text.text.size());
  return result;
}

}  // namespace

MarkedText Normalized(const Normalizer& normalizer, MarkedText text, RegexScratch& scratch) {
  for (const NormalizerStep& step : normalizer) {
    if (text.text.empty()) break;
    text = step.kind == NormalizerStep::Kind::kPrepend ? Prepended(step.content, text)
                                                       : ChangedByStretch(step, text, scratch);
  }
  return text;
}

}  // namespace wideload::tokenizer
