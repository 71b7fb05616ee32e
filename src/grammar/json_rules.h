// The rules of JSON texts, made where they are used. Belongs to one thread.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "grammar/grammar.h"
#include "jinja/value.h"

namespace wideload::grammar {

// How JSON is written: behind an opening bracket, behind a comma or a colon and before a closing
// bracket there is nothing, a blank, or a line end and up to kMaxIndent blanks; elsewhere nothing.
// Keys and texts have no escapes that they do not need, but for texts of which nothing is asked;
// numbers have at most kMaxDigits digits before the point and behind it, and two of an exponent.
class JsonRules {
 public:
  static constexpr uint32_t kMaxIndent = 40;
  static constexpr uint32_t kMaxDigits = 18;

  // Of a builder that outlives it.
  explicit JsonRules(GrammarBuilder& builder) : builder_(builder) {}

  // In which the rules are.
  GrammarBuilder& builder() { return builder_; }

  // Any JSON value.
  RuleId AnyValue() { return Get("value"); }
  // Any object.
  RuleId AnyObject() { return Get("object"); }
  // Any text, in quotes.
  RuleId AnyText() { return Get("text"); }
  // A character of a text, as it is or as an escape.
  RuleId Character() { return Get("character"); }
  // Of up to kMaxDigits digits.
  RuleId Integer() { return Get("integer"); }
  // With point and exponent or without.
  RuleId Number() { return Get("number"); }
  // Not below 0.
  RuleId PositiveNumber() { return Get("positive"); }
  // Nothing or the blanks above.
  ExpressionId Blanks() { return builder_.Optional(builder_.Call(Get("blanks"))); }

  // {A, B} of members that are written already.
  ExpressionId Object(GrammarBuilder::List members);
  // [...] around items with their commas.
  ExpressionId Array(ExpressionId items);
  // A comma and blanks.
  ExpressionId Comma();
  // "KEY": VALUE
  ExpressionId Member(std::string_view key, ExpressionId value);
  // ANY KEY BUT THESE: VALUE
  ExpressionId OtherMember(const std::vector<std::string>& keys, ExpressionId value);

  // This one value.
  ExpressionId Literal(const jinja::Value& value);
  // A text in quotes.
  ExpressionId Text(std::string_view text);
  // A character of a text as JSON writes it, without quotes.
  ExpressionId Characters(const tokenizer::CodePointSet& set);
  // Integers of `least` to `most`, both within 18 digits. Nothing if there are none.
  ExpressionId IntegersOf(int64_t least, int64_t most);

 private:
  using Body = ExpressionId (JsonRules::*)();
  RuleId Get(const std::string& name);
  ExpressionId BlanksBody();
  ExpressionId CharacterBody();
  ExpressionId TextBody();
  ExpressionId IntegerBody();
  ExpressionId NumberBody();
  ExpressionId PositiveBody();
  ExpressionId ObjectBody();
  ExpressionId ValueBody();
  ExpressionId Digits(uint32_t min, uint32_t max);
  ExpressionId UnsignedInteger();
  ExpressionId Fraction();
  ExpressionId DigitsBetween(const std::string& least, const std::string& most);
  ExpressionId PositivesOf(int64_t least, int64_t most);
  ExpressionId OtherKey(const std::vector<std::string>& keys, size_t length);

  GrammarBuilder& builder_;
  std::map<std::string, RuleId> rules_;
};

}  // namespace wideload::grammar
