// Regular expressions as parts of a grammar. Pure.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "grammar/grammar.h"
#include "tokenizer/code_points.h"

namespace wideload::grammar {

// How one character out of a set is written.
using WriteCharacter = std::function<ExpressionId(const tokenizer::CodePointSet& set)>;

// The texts that match `pattern`: ECMA 262's syntax as far as tokenizer::ParseRegex reads it too,
// with ^ at the begin and $ at the end of the whole. \d, \w and \s are those of ASCII. With
// `is_search` what is not anchored may stand anywhere in the text, as JSON Schema has it; without,
// the whole text matches. Errors: kUnsupported and kCorrupt as ParseRegex, kUnsupported for
// assertions and possessive parts; naming `where`.
ExpressionId PatternExpression(std::string_view pattern, const std::string& where, bool is_search,
                               GrammarBuilder& builder, const WriteCharacter& write);

}  // namespace wideload::grammar
