#include "grammar/json_rules.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "base/json.h"
#include "tokenizer/unicode.h"

namespace wideload::grammar {
namespace {

using tokenizer::CodePointSet;

// What a text may hold without an escape.
const CodePointSet& PlainCharacters() {
  static const CodePointSet plain(
      {{0x20, 0x21}, {0x23, 0x5B}, {0x5D, 0xD7FF}, {0xE000, tokenizer::kMaxCodePoint}});
  return plain;
}

// The rest in its shortest form.
std::string EscapeOf(uint32_t character) {
  switch (character) {
    case '"':
      return "\\\"";
    case '\\':
      return "\\\\";
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    case '\b':
      return "\\b";
    case '\f':
      return "\\f";
    default:
      return fmt::format("\\u{:04x}", character);
  }
}

CodePointSet Only(uint32_t character) { return CodePointSet({{character, character}}); }

// The character at `at`, which moves behind it.
uint32_t NextCharacter(std::string_view text, size_t& at) {
  const tokenizer::Utf8Unit unit = tokenizer::Utf8At(text, at);
  at += unit.length;
  return unit.code_point;
}

}  // namespace

RuleId JsonRules::Get(const std::string& name) {
  static const std::map<std::string, Body> bodies = {
      {"blanks", &JsonRules::BlanksBody}, {"character", &JsonRules::CharacterBody},
      {"text", &JsonRules::TextBody},     {"integer", &JsonRules::IntegerBody},
      {"number", &JsonRules::NumberBody}, {"positive", &JsonRules::PositiveBody},
      {"object", &JsonRules::ObjectBody}, {"value", &JsonRules::ValueBody}};
  const auto found = rules_.find(name);
  if (found != rules_.end()) return found->second;
  const RuleId rule = builder_.AddRule();
  rules_.emplace(name, rule);
  builder_.Define(rule, (this->*bodies.at(name))());
  return rule;
}

ExpressionId JsonRules::BlanksBody() {
  const ExpressionId blank = builder_.Bytes(" ");
  return builder_.Choice(
      {blank, builder_.Row({builder_.Bytes("\n"), builder_.Repeat(blank, 0, kMaxIndent)})});
}

// \u escapes of surrogates are left out: alone they are no characters.
ExpressionId JsonRules::CharacterBody() {
  const auto any_of = [this](std::vector<CodePointSet::Range> ranges) {
    return builder_.Characters(CodePointSet(std::move(ranges)));
  };
  const ExpressionId hex = any_of({{'0', '9'}, {'a', 'f'}, {'A', 'F'}});
  const ExpressionId no_surrogate = builder_.Choice(
      {builder_.Row({any_of({{'0', '9'}, {'a', 'c'}, {'e', 'f'}, {'A', 'C'}, {'E', 'F'}}), hex}),
       builder_.Row({any_of({{'d', 'd'}, {'D', 'D'}}), any_of({{'0', '7'}})})});
  const ExpressionId simple = any_of({{'"', '"'},
                                      {'/', '/'},
                                      {'\\', '\\'},
                                      {'b', 'b'},
                                      {'f', 'f'},
                                      {'n', 'n'},
                                      {'r', 'r'},
                                      {'t', 't'}});
  const ExpressionId escape =
      builder_.Choice({simple, builder_.Row({builder_.Bytes("u"), no_surrogate, hex, hex})});
  return builder_.Choice(
      {builder_.Characters(PlainCharacters()), builder_.Row({builder_.Bytes("\\"), escape})});
}

ExpressionId JsonRules::TextBody() {
  const ExpressionId quote = builder_.Bytes("\"");
  return builder_.Row(
      {quote, builder_.Repeat(CharacterBody(), 0, GrammarBuilder::kUnbounded), quote});
}

ExpressionId JsonRules::Digits(uint32_t min, uint32_t max) {
  return builder_.Repeat(builder_.AnyByte('0', '9'), min, max);
}

ExpressionId JsonRules::UnsignedInteger() {
  return builder_.Choice(
      {builder_.Bytes("0"), builder_.Row({builder_.AnyByte('1', '9'), Digits(0, kMaxDigits - 1)})});
}

ExpressionId JsonRules::IntegerBody() {
  return builder_.Row({builder_.Optional(builder_.Bytes("-")), UnsignedInteger()});
}

ExpressionId JsonRules::Fraction() {
  const ExpressionId sign = builder_.Choice({builder_.Bytes("+"), builder_.Bytes("-")});
  const ExpressionId e = builder_.Choice({builder_.Bytes("e"), builder_.Bytes("E")});
  return builder_.Row(
      {builder_.Optional(builder_.Row({builder_.Bytes("."), Digits(1, kMaxDigits)})),
       builder_.Optional(builder_.Row({e, builder_.Optional(sign), Digits(1, 2)}))});
}

ExpressionId JsonRules::NumberBody() { return builder_.Row({IntegerBody(), Fraction()}); }

ExpressionId JsonRules::PositiveBody() { return builder_.Row({UnsignedInteger(), Fraction()}); }

ExpressionId JsonRules::ObjectBody() {
  const ExpressionId member = builder_.Row(
      {builder_.Call(AnyText()), builder_.Bytes(":"), Blanks(), builder_.Call(AnyValue())});
  return Object({.items = {}, .separator = Comma(), .tail = member});
}

ExpressionId JsonRules::ValueBody() {
  const ExpressionId value = builder_.Call(AnyValue());
  const ExpressionId items = builder_.Separated({.items = {}, .separator = Comma(), .tail = value});
  return builder_.Choice({builder_.Call(AnyObject()), Array(items), builder_.Call(AnyText()),
                          builder_.Call(Number()), builder_.Bytes("true"), builder_.Bytes("false"),
                          builder_.Bytes("null")});
}

ExpressionId JsonRules::Comma() { return builder_.Row({builder_.Bytes(","), Blanks()}); }

ExpressionId JsonRules::Object(GrammarBuilder::List members) {
  return builder_.Row({builder_.Bytes("{"), Blanks(), builder_.Separated(std::move(members)),
                       Blanks(), builder_.Bytes("}")});
}

ExpressionId JsonRules::Array(ExpressionId items) {
  return builder_.Row({builder_.Bytes("["), Blanks(), items, Blanks(), builder_.Bytes("]")});
}

ExpressionId JsonRules::Member(std::string_view key, ExpressionId value) {
  return builder_.Row({Text(key), builder_.Bytes(":"), Blanks(), value});
}

// Past the first `length` bytes of all these keys, sorted: other characters lead to any other key.
ExpressionId JsonRules::OtherKey(const std::vector<std::string>& keys, size_t length) {
  const ExpressionId quote = builder_.Bytes("\"");
  const ExpressionId rest = builder_.Row(
      {builder_.Repeat(builder_.Call(Character()), 0, GrammarBuilder::kUnbounded), quote});
  std::vector<ExpressionId> ways;
  CodePointSet taken;
  size_t first = 0;
  if (keys.front().size() == length)
    ++first;  // one of the keys may not end here
  else
    ways.push_back(quote);
  while (first < keys.size()) {
    size_t behind = length;
    const uint32_t character = NextCharacter(keys[first], behind);
    const std::string_view begin = std::string_view(keys[first]).substr(0, behind);
    size_t last = first;
    while (last < keys.size() && std::string_view(keys[last]).starts_with(begin)) ++last;
    // What needs an escape is not written at all: it could be one of the keys.
    if (PlainCharacters().Contains(character)) {
      const std::vector<std::string> those(keys.begin() + static_cast<int64_t>(first),
                                           keys.begin() + static_cast<int64_t>(last));
      ways.push_back(builder_.Row({builder_.Characters(Only(character)), OtherKey(those, behind)}));
      taken = taken.Or(Only(character));
    }
    first = last;
  }
  ways.push_back(
      builder_.Row({builder_.Characters(PlainCharacters().And(taken.Complement())), rest}));
  return builder_.Choice(std::move(ways));
}

ExpressionId JsonRules::OtherMember(const std::vector<std::string>& keys, ExpressionId value) {
  std::vector<std::string> sorted = keys;
  std::sort(sorted.begin(), sorted.end());
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
  const ExpressionId key = sorted.empty()
                               ? builder_.Call(AnyText())
                               : builder_.Row({builder_.Bytes("\""), OtherKey(sorted, 0)});
  return builder_.Row({key, builder_.Bytes(":"), Blanks(), value});
}

ExpressionId JsonRules::Characters(const CodePointSet& set) {
  std::vector<ExpressionId> ways = {builder_.Characters(set.And(PlainCharacters()))};
  for (uint32_t c = 0; c < 0x80; ++c)
    if (set.Contains(c) && !PlainCharacters().Contains(c))
      ways.push_back(builder_.Bytes(EscapeOf(c)));
  return builder_.Choice(std::move(ways));
}

ExpressionId JsonRules::Text(std::string_view text) {
  std::string bytes = "\"";
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const uint32_t character = NextCharacter(text, at);
    if (PlainCharacters().Contains(character))
      bytes += text.substr(begin, at - begin);
    else
      bytes += EscapeOf(character);
  }
  return builder_.Bytes(bytes + "\"");
}

ExpressionId JsonRules::Literal(const jinja::Value& value) {
  if (value.IsNone()) return builder_.Bytes("null");
  if (value.Bool() != nullptr) return builder_.Bytes(*value.Bool() ? "true" : "false");
  if (value.Int() != nullptr) return builder_.Bytes(std::to_string(*value.Int()));
  if (value.Float() != nullptr) return builder_.Bytes(DumpJson(*value.Float()));
  if (value.Big() != nullptr) return builder_.Bytes(value.Big()->digits);
  if (value.Str() != nullptr) return Text(value.Str()->text());
  GrammarBuilder::List list{.items = {}, .separator = Comma()};
  if (value.Seq() != nullptr) {
    for (const jinja::Value& item : value.Seq()->items) list.items.push_back({Literal(item)});
    return Array(builder_.Separated(std::move(list)));
  }
  WIDELOAD_CHECK(value.Map() != nullptr, "a value that is no JSON");
  for (const jinja::Dict::Entry& entry : value.Map()->entries())
    list.items.push_back({Member(entry.key.Str()->text(), Literal(entry.value))});
  return Object(std::move(list));
}

// Both have as many digits.
ExpressionId JsonRules::DigitsBetween(const std::string& least, const std::string& most) {
  if (least.empty()) return builder_.Empty();
  const auto rest = static_cast<uint32_t>(least.size() - 1);
  const std::string lowest(rest, '0'), highest(rest, '9');
  if (least.substr(1) == lowest && most.substr(1) == highest)
    return builder_.Row(
        {builder_.AnyByte(static_cast<uint8_t>(least[0]), static_cast<uint8_t>(most[0])),
         Digits(rest, rest)});
  const auto with = [&](char digit, const std::string& low, const std::string& high) {
    return builder_.Row({builder_.Bytes({&digit, 1}), DigitsBetween(low, high)});
  };
  if (least[0] == most[0]) return with(least[0], least.substr(1), most.substr(1));
  std::vector<ExpressionId> ways = {with(least[0], least.substr(1), highest)};
  if (least[0] + 1 < most[0])
    ways.push_back(builder_.Row(
        {builder_.AnyByte(static_cast<uint8_t>(least[0] + 1), static_cast<uint8_t>(most[0] - 1)),
         Digits(rest, rest)}));
  ways.push_back(with(most[0], lowest, most.substr(1)));
  return builder_.Choice(std::move(ways));
}

// 0 <= least <= most.
ExpressionId JsonRules::PositivesOf(int64_t least, int64_t most) {
  std::vector<ExpressionId> ways;
  const std::string low = std::to_string(least), high = std::to_string(most);
  for (size_t digits = low.size(); digits <= high.size(); ++digits) {
    const std::string from = digits == low.size() ? low : "1" + std::string(digits - 1, '0');
    const std::string to = digits == high.size() ? high : std::string(digits, '9');
    if (from == "0" && to != "0") {
      ways.push_back(builder_.Bytes("0"));
      ways.push_back(DigitsBetween("1", to));
    } else {
      ways.push_back(DigitsBetween(from, to));
    }
  }
  return builder_.Choice(std::move(ways));
}

ExpressionId JsonRules::IntegersOf(int64_t least, int64_t most) {
  std::vector<ExpressionId> ways;
  if (least < 0 && least <= most)
    ways.push_back(
        builder_.Row({builder_.Bytes("-"), PositivesOf(std::max<int64_t>(1, -most), -least)}));
  if (most >= 0 && least <= most) ways.push_back(PositivesOf(std::max<int64_t>(0, least), most));
  return builder_.Choice(std::move(ways));
}

}  // namespace wideload::grammar
