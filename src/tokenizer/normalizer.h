// The normalizer of a tokenizer.json: a row of steps that change a text before it is cut.
// Immutable; may be used by many threads, each with its own RegexScratch.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/regex.h"

namespace wideload::tokenizer {

// A text and the ranges of it in which added tokens are not looked for, sorted, not overlapping.
struct MarkedText {
  std::string text;
  std::vector<TextRange> plain;
};

// One step; the names are those of tokenizer.json.
struct NormalizerStep {
  // What a step does.
  enum class Kind { kNfc, kPrepend, kReplace };

  Kind kind = Kind::kNfc;
  std::optional<Regex> pattern;  // kReplace; nothing: matches nowhere
  std::string content;  // kPrepend: what stands before a text; kReplace: instead of a match
};

// Steps in their order; without any the text stays as it is.
using Normalizer = std::vector<NormalizerStep>;

// `text` after all steps. kNfc and kReplace work on the stretches inside and between plain ranges
// one by one, so that the marks stay true. Errors: as Regex::FindAll.
MarkedText Normalized(const Normalizer& normalizer, MarkedText text, RegexScratch& scratch);

}  // namespace wideload::tokenizer
