#include "grammar/json_schema.h"

#include <gtest/gtest.h>

#include <cmath>
#include <optional>
#include <random>

#include "base/error.h"
#include "base/json.h"
#include "grammar/testing.h"

namespace wideload::grammar {
namespace {

std::string WhyRefused(std::string_view schema) {
  try {
    GrammarOf(schema);
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

// What a schema allows and what it does not.
struct Case {
  const char* schema;
  std::vector<const char*> allowed;
  std::vector<const char*> others;
};

const std::vector<Case>& Cases() {
  static const std::vector<Case> cases = {
      {R"({"type": "boolean"})", {"true", "false"}, {"null", "True", "1", "\"true\""}},
      {R"({"type": ["integer", "null"], "title": "n"})", {"0", "-12", "null"}, {"1.0", "01", "-"}},
      {R"({"type": "number"})", {"0", "-1.5", "1e9", "2.5E-3"}, {"1.", ".5", "1e", "+1", "NaN"}},
      {R"({"type": "number", "minimum": 0})", {"0", "0.25"}, {"-1"}},
      {R"({"type": "integer", "minimum": 0, "maximum": 18446744073709551615})",
       {"0", "999999999999999999"},
       {"-1"}},
      {R"({"type": "integer", "minimum": -3, "exclusiveMaximum": 112})",
       {"-3", "-1", "0", "9", "10", "99", "100", "111"},
       {"-4", "112", "-0", "1000", "007"}},
      {R"({"type": "integer", "minimum": 95, "maximum": 1203})",
       {"95", "99", "100", "999", "1000", "1199", "1203"},
       {"94", "1204", "1300", "9"}},
      {R"({"type": "string"})",
       {R"("")", R"("a b")", R"("\n\u00e9\"")", "\"\u00e9\U0001F600\""},
       {"\"\n\"", R"("\x")", R"("\ud800")", "\"\xff\"", "a", "\"a"}},
      {R"({"type": "string", "minLength": 1, "maxLength": 2})",
       {R"("a")", "\"\U0001F600\u00e9\"", R"("\n\n")"},
       {R"("")", R"("abc")"}},
      {R"({"type": "string", "pattern": "^[a-c\"]+$"})", {R"("abc")", R"("a\"")"}, {R"("d")"}},
      {R"({"type": "string", "pattern": "b"})", {R"("abc")", R"("b")"}, {R"("ac")"}},
      {R"({"type": "string", "format": "date"})",
       {R"("2024-02-28")", R"("1999-12-31")"},
       {R"("2024-02-30")", R"("2024-13-01")", R"("24-01-01")"}},
      {R"({"type": "string", "format": "uuid"})",
       {R"("01234567-89ab-cdef-0123-456789abcdef")"},
       {R"("01234567")"}},
      {R"({"type": "string", "format": "ipv4"})", {R"("10.0.255.1")"}, {R"("10.0.256.1")"}},
      {R"({"enum": ["a", 1, null, {"x": [true, 2.5]}]})",
       {R"("a")", "1", "null", R"({"x": [true, 2.5]})", R"({"x":[true,2.5]})"},
       {R"("b")", "2", R"({"x":[true]})"}},
      {R"({"type": "string", "enum": ["a", 1]})", {R"("a")"}, {"1"}},
      {R"({"const": "x\"y"})", {R"("x\"y")"}, {R"("x")"}},
      {R"({"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 3})",
       {"[1]", "[1, 2]", "[\n  1,\n  2,\n  3\n]", "[1,2,3 ]"},
       {"[]", "[1,2,3,4]", "[1 ,2]", "[1  ]", "[true]"}},
      {R"({"type": "array", "items": {"type": "integer"}})", {"[]", "[1,1,1,1,1,1]"}, {"[,]"}},
      {R"({"type": "array", "maxItems": 0})", {"[]", "[ ]"}, {"[1]"}},
      {R"({"prefixItems": [{"type": "integer"}, {"type": "string"}], "items": false})",
       {R"([1, "a"])"},
       {"[1]", R"(["a", 1])", R"([1, "a", 2])"}},
      {R"({"type": "object", "properties": {"b": {"type": "integer"}, "a": {"type": "null"}},
           "required": ["b"]})",
       {R"({"b": 1})", R"({"b":1,"a":null})", "{\n    \"b\": 1,\n    \"a\": null\n}"},
       {"{}", R"({"a":null,"b":1})", R"({"b":1,"c":2})", R"({"b":1,})", R"({"b" :1})"}},
      {R"({"type": "object", "properties": {"ab": {"type": "integer"}, "a": {"type": "null"}},
           "additionalProperties": {"type": "boolean"}})",
       {"{}", R"({"x":true})", R"({"ab":1,"a":null,"abc":true,"b":false,"":true,"aa\n":true})"},
       {R"({"a":true})", R"({"ab":true})", R"({"x":1})", R"({"\u0061":true})"}},
      {R"({"type": "object", "required": ["z"], "additionalProperties": {"type": "integer"}})",
       {R"({"z": 1})", R"({"z":1,"y":2})"},
       {"{}", R"({"y":2})", R"({"z":null})"}},
      {R"({"type": "object"})", {"{}", R"({"a": [1, {"b": null}]})"}, {"[]", "1"}},
      {R"({})", {"1", "[]", R"({"a": true})", R"("x")"}, {"", "tru"}},
      {R"(true)", {"null"}, {"nil"}},
      {R"({"anyOf": [{"type": "integer"}, {"type": "array", "items": {"$ref": "#"}}]})",
       {"1", "[[1], 2, []]"},
       {"null", "[null]"}},
      {R"({"oneOf": [{"type": "object", "properties": {"k": {"const": "a"}, "v": {"type": "integer"}},
                      "required": ["k", "v"]},
                     {"type": "object", "properties": {"k": {"const": "b"}}, "required": ["k"]},
                     {"type": "string"}]})",
       {R"({"k":"a","v":1})", R"({"k":"b"})", R"("s")"},
       {R"({"k":"a"})", R"({"k":"b","v":1})", R"({"k":"c"})"}},
      {R"({"allOf": [{"$ref": "#/$defs/a~1b"}], "$defs": {"a/b": {"type": "null"}}})",
       {"null"},
       {"1"}},
      {R"({"type": "integer", "nullable": true})", {"1", "null"}, {"true"}},
      {R"({"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "properties":
           {"v": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
           "required": ["v", "next"], "additionalProperties": false}}})",
       {R"({"v":1,"next":{"v":2,"next":null}})"},
       {R"({"v":1,"next":{"v":2}})"}},
  };
  return cases;
}

TEST(SchemaGrammar, AllowsWhatTheSchemaAllows) {
  for (const Case& one : Cases()) {
    const Grammar grammar = GrammarOf(one.schema);
    for (const char* text : one.allowed) EXPECT_TRUE(Accepts(grammar, text)) << one.schema << text;
    for (const char* text : one.others) EXPECT_FALSE(Accepts(grammar, text)) << one.schema << text;
  }
}

// Random tokens of those that are allowed, until the text may end: then it does, half of the times,
// so that texts are short. The text, or none after 200 tokens.
std::optional<std::string> Walk(TokenMatcher matcher, std::mt19937& random) {
  std::string text;
  for (int step = 0; step < 200; ++step) {
    if (matcher.IsEnd() && (!matcher.GoesOn() || random() % 2 == 0)) return text;
    const auto allowed = matcher.Allowed();
    std::vector<int32_t> choices;
    for (int32_t token = 0; token < SmallTrie()->vocab_size(); ++token)
      if (IsAllowed(*allowed, token)) choices.push_back(token);
    const int32_t token = choices.empty() ? -1 : choices[random() % choices.size()];
    if (token < 0 || !matcher.Advance(token)) return text + " and no way on";
    text += SmallTrie()->BytesOf(token);
  }
  return std::nullopt;
}

TEST(SchemaGrammar, EveryWalkOverTokensIsJson) {
  std::mt19937 random(11);
  for (const Case& one : Cases()) {
    const Grammar grammar = GrammarOf(one.schema);
    const auto shared = std::make_shared<TokenGrammar>(grammar, SmallTrie());
    for (int run = 0; run < 20; ++run) {
      const std::optional<std::string> text = Walk(TokenMatcher(shared), random);
      if (!text) continue;
      EXPECT_TRUE(Json::accept(*text)) << *text << " of " << one.schema;
      EXPECT_TRUE(Accepts(grammar, *text)) << *text << " of " << one.schema;
    }
  }
}

TEST(SchemaGrammar, NamesWhatItRefusesAndWhere) {
  const std::vector<std::pair<const char*, const char*>> cases = {
      {R"({"properties": {"a": {"not": {}}}})", "/properties/a/not is not supported"},
      {R"({"type": "object", "patternProperties": {}})", "/patternProperties is not supported"},
      {R"({"items": {"multipleOf": 2}})", "/items/multipleOf is not supported"},
      {R"({"type": "array", "uniqueItems": true})", "/uniqueItems is not supported but as false"},
      {R"({"type": "number", "maximum": 3})", "/maximum is supported of integers only"},
      {R"({"type": "text"})", "/type names no type"},
      {R"({"type": "string", "format": "hostname"})", "/format is not supported"},
      {R"x({"type": "string", "pattern": "(?=a)"})x",
       "/pattern: the regular expression has an assertion"},
      {R"({"type": "string", "pattern": "["})", "/pattern"},
      {R"({"type": "string", "maxLength": 100000})", "/maxLength is 100000; at most 1024"},
      {R"({"type": "string", "minLength": 3, "maxLength": 2})", "/maxLength is below minLength"},
      {R"({"type": "string", "pattern": "a", "minLength": 1})", "the schema has more than one of"},
      {R"({"type": "integer", "minimum": 3, "maximum": 2})", "no integer"},
      {R"({"type": "integer", "minimum": 18446744073709551615})", "beyond 2^53"},
      {R"({"type": "integer", "minimum": "3"})", "is no number"},
      {R"({"oneOf": [{"type": "integer"}, {"type": "number"}]})",
       "/oneOf has the alternatives 0 and 1"},
      {R"({"oneOf": [{"enum": [1], "nullable": true}, {"type": "null"}]})", "/oneOf has"},
      {R"({"allOf": [{}, {}]})", "/allOf has 2 schemas; at most 1"},
      {R"({"anyOf": [{}], "type": "string"})", "/type is not supported beside anyOf"},
      {R"({"$ref": "#/$defs/x"})", "/$ref is \"#/$defs/x\", which is not there"},
      {R"({"$ref": "https://example.org/x"})", "/$ref does not begin with #/"},
      {R"({"$ref": "#"})", "refers to itself"},
      {R"({"anyOf": [{"$ref": "#"}, {"type": "null"}]})", "refers to itself"},
      {R"({"oneOf": [{"$ref": "#/oneOf/0"}, {"type": "null"}]})", "refers to itself"},
      {R"({"type": "array", "items": {"$ref": "#"}, "minItems": 1})", "no text can satisfy it"},
      {R"({"type": "object", "properties": {"a": false}})", "/properties/a is false"},
      {R"({"required": ["a"], "additionalProperties": false})", "/required has \"a\""},
      {R"({"type": "object", "properties": {"a": 1}})", "/properties/a is no schema"},
      {R"([])", "is no schema"},
      {R"({"oneOf": [{"enum": [1, 2]}, {"enum": [3, {"a": [1]}]}, {"const": {"a": [1.0]}}]})",
       "/oneOf has the alternatives 1 and 2"},
  };
  for (const auto& [schema, wrong] : cases)
    EXPECT_NE(WhyRefused(schema).find(wrong), std::string::npos)
        << schema << ": " << WhyRefused(schema);
}

// A client may not take the server's time or memory.
TEST(SchemaGrammar, RefusesWhatWouldTakeTooMuch) {
  std::string doubled = R"({"$defs": {"a0": {"type": "null"})";
  for (int i = 1; i <= 30; ++i)
    doubled += fmt::format(R"(, "a{}": {{"prefixItems": [{{"$ref": "#/$defs/a{}"}}, )"
                           R"({{"$ref": "#/$defs/a{}"}}]}})",
                           i, i - 1, i - 1);
  EXPECT_EQ(WhyRefused(doubled + R"(}, "$ref": "#/$defs/a30"})"), "")
      << "2^30 nulls in thirty rules";
  std::string values;
  for (int i = 0; i < 1025; ++i) values += fmt::format("{}{}", i > 0 ? "," : "", i);
  EXPECT_NE(WhyRefused("{\"enum\": [" + values + "]}").find("/enum has 1025 values"),
            std::string::npos);
  std::string many = "{}";
  for (int i = 1; i < 65; ++i) many += ",{}";
  EXPECT_NE(WhyRefused("{\"anyOf\": [" + many + "]}").find("/anyOf has 65"), std::string::npos);
  EXPECT_NE(
      WhyRefused(R"x({"type": "string", "pattern": "((a{1000}){1000}){1000}"})x").find("more than"),
      std::string::npos);
  // States that double with each further character of the pattern.
  EXPECT_NE(WhyRefused(R"({"type": "string", "pattern": "a.{500}$"})").find("more than"),
            std::string::npos);
  std::string optional;
  for (int i = 0; i < 1000; ++i)
    optional += fmt::format("{}\"{}{}\": {{}}", i > 0 ? "," : "", std::string(40, 'p'), i);
  EXPECT_NE(WhyRefused("{\"properties\": {" + optional + "}}").find("more than"),
            std::string::npos);
}

}  // namespace
}  // namespace wideload::grammar
