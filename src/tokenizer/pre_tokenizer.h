// Cuts text into the pieces that byte-pair encoding works on: a row of splits, then ByteLevel.
// Immutable; may be used by many threads, each with its own RegexScratch.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/regex.h"

namespace wideload::tokenizer {

// What becomes of a match; the names are those of tokenizer.json.
enum class SplitBehavior { kIsolated, kRemoved, kMergedWithPrevious, kMergedWithNext, kContiguous };

struct Split {
  std::optional<Regex> pattern;  // nothing: matches nowhere
  SplitBehavior behavior = SplitBehavior::kIsolated;
  bool invert = false;  // what the pattern does not match counts as the match
};

struct PreTokenizer {
  std::vector<Split> splits;
  bool add_prefix_space = false;          // of ByteLevel: to each piece that has none
  std::optional<Regex> byte_level_regex;  // of ByteLevel with use_regex: isolated pieces
};

// The ranges of `text` (well-formed UTF-8, not empty) that `split` leaves, in order; empty ones are
// left out. Errors: as Regex::FindAll.
std::vector<TextRange> Apply(const Split& split, std::string_view text, RegexScratch& scratch);

// Calls emit(piece) for the pieces of `text`, in order; a piece lives until emit returns. Errors:
// as Regex::FindAll.
template <class Emit>
void PreTokenize(const PreTokenizer& pre_tokenizer, std::string_view text, RegexScratch& scratch,
                 Emit&& emit) {
  std::vector<TextRange> pieces{{0, text.size()}};
  if (text.empty()) pieces.clear();
  for (const Split& split : pre_tokenizer.splits) {
    std::vector<TextRange> finer;
    for (const TextRange& piece : pieces) {
      const std::string_view whole = text.substr(piece.begin, piece.end - piece.begin);
      for (const TextRange& part : Apply(split, whole, scratch))
        finer.push_back({piece.begin + part.begin, piece.begin + part.end});
    }
    pieces = std::move(finer);
  }
  const Split byte_level{.pattern = pre_tokenizer.byte_level_regex};
  std::string prefixed;
  for (const TextRange& piece : pieces) {
    std::string_view whole = text.substr(piece.begin, piece.end - piece.begin);
    if (pre_tokenizer.add_prefix_space && whole[0] != ' ') {
      prefixed.assign(" ").append(whole);
      whole = prefixed;
    }
    if (!byte_level.pattern) {
      emit(whole);
      continue;
    }
    for (const TextRange& part : Apply(byte_level, whole, scratch))
      emit(whole.substr(part.begin, part.end - part.begin));
  }
}

// The regular expression of ByteLevel. Source: openai/gpt-2, encoder.py.
std::string_view ByteLevelPattern();

}  // namespace wideload::tokenizer
