// The syntax tree of a regular expression. Values; not for several threads at once.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/code_points.h"

namespace wideload::tokenizer {

// A part of a pattern, with its parts.
struct RegexNode {
  // What it matches.
  enum class Kind {
    kEmpty,
    kSet,         // one character of `set`
    kRow,         // the children one after the other
    kChoice,      // the first child that leads to a match
    kRepeat,      // the child, `min` to `max` times
    kAtomic,      // the child, without coming back to it
    kLookAhead,   // the child would match here; is_negated: it would not
    kLookBehind,  // the child ends here and has `min` = `max` characters; is_negated: it does not
  };
  // How often a repetition tries to match first.
  enum class Mode { kGreedy, kLazy, kPossessive };

  static constexpr uint32_t kUnbounded = UINT32_MAX;

  Kind kind = Kind::kEmpty;
  CodePointSet set;
  std::vector<RegexNode> children;
  uint32_t min = 0;
  uint32_t max = 0;
  Mode mode = Mode::kGreedy;
  bool is_negated = false;
};

// Reads `pattern` as Oniguruma does with Ruby's syntax, which tokenizer.json is written for.
// Supported: literals, classes with classes inside and intersections, . | * + ? {n} {n,} {n,m},
// lazy and possessive forms, groups ( (?: (?i: (?> (?= (?! (?<= (?<!, \p \P \s \S \d \D \w \W and
// escapes of characters. Errors: kUnsupported for other syntax and for more than 16,384 bytes,
// kCorrupt where it is no regular expression; both name `where` (file and field) and the place.
RegexNode ParseRegex(std::string_view pattern, const std::string& where);

}  // namespace wideload::tokenizer
