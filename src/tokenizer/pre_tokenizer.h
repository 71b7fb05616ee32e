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

// Cuts at the matches of a pattern.
struct Split {
  std::optional<Regex> pattern;  // nothing: matches nowhere
  SplitBehavior behavior = SplitBehavior::kIsolated;
  bool invert = false;  // what the pattern does not match counts as the match
};

// Writes blanks as `replacement` and may put one before a text, as SentencePiece does.
struct Metaspace {
  // Where a space is put in front.
  enum class Prepend { kAlways, kFirst, kNever };

  std::string replacement;             // one character
  Prepend prepend = Prepend::kAlways;  // kFirst: only at the begin of the whole text
  std::optional<Split> split;          // before each replacement character
};

// `splits` in order, then what is set of the rest.
struct PreTokenizer {
  std::vector<Split> splits;
  std::optional<Metaspace> metaspace;
  bool is_byte_level = false;             // pieces are bytes, not characters
  bool add_prefix_space = false;          // of ByteLevel: to each piece that has none
  std::optional<Regex> byte_level_regex;  // of ByteLevel with use_regex: isolated pieces
};

// The ranges of `text` (well-formed UTF-8, not empty) that `split` leaves, in order; empty ones are
// left out. Errors: as Regex::FindAll.
std::vector<TextRange> Apply(const Split& split, std::string_view text, RegexScratch& scratch);

// `piece` as `metaspace` writes it.
std::string WithMetaspace(const Metaspace& metaspace, std::string_view piece, bool is_first);

// Calls emit(piece) for the pieces of `text`, in order; a piece lives until emit returns.
// `is_first`: nothing stands before `text`. Errors: as Regex::FindAll.
template <class Emit>
void PreTokenize(const PreTokenizer& pre_tokenizer, std::string_view text, bool is_first,
                 RegexScratch& scratch, Emit&& emit) {
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
  const Split last = pre_tokenizer.metaspace ? pre_tokenizer.metaspace->split.value_or(Split())
                                             : Split{.pattern = pre_tokenizer.byte_level_regex};
  std::string rewritten;
  for (const TextRange& piece : pieces) {
    std::string_view whole = text.substr(piece.begin, piece.end - piece.begin);
    if (pre_tokenizer.metaspace) {
      rewritten = WithMetaspace(*pre_tokenizer.metaspace, whole, is_first && piece.begin == 0);
      whole = rewritten;
    } else if (pre_tokenizer.add_prefix_space && whole[0] != ' ') {
      rewritten.assign(" ").append(whole);
      whole = rewritten;
    }
    if (!last.pattern) {
      emit(whole);
      continue;
    }
    for (const TextRange& part : Apply(last, whole, scratch))
      emit(whole.substr(part.begin, part.end - part.begin));
  }
}

// The regular expression of ByteLevel. Source: openai/gpt-2, encoder.py.
std::string_view ByteLevelPattern();

}  // namespace wideload::tokenizer
