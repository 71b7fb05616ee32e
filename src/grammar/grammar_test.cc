#include "grammar/grammar.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "grammar/pattern.h"
#include "grammar/testing.h"
#include "tokenizer/unicode.h"

namespace wideload::grammar {
namespace {

// The message of the Error that `call` throws; "" when it throws none.
template <class Call>
std::string RefusalOf(Call call) {
  try {
    call();
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

Grammar Built(const std::function<ExpressionId(GrammarBuilder&)>& make) {
  GrammarBuilder builder;
  const RuleId root = builder.AddRule();
  builder.Define(root, make(builder));
  return builder.Build(root);
}

TEST(GrammarBuilder, RepeatsBetweenItsBounds) {
  const Grammar grammar = Built([](GrammarBuilder& b) { return b.Repeat(b.Bytes("ab"), 1, 3); });
  EXPECT_FALSE(Accepts(grammar, ""));
  EXPECT_TRUE(Accepts(grammar, "ab"));
  EXPECT_TRUE(Accepts(grammar, "ababab"));
  EXPECT_FALSE(Accepts(grammar, "abababab"));
  EXPECT_FALSE(Accepts(grammar, "aba"));
}

TEST(GrammarBuilder, SeparatesWhatIsThereOfAList) {
  const Grammar grammar = Built([](GrammarBuilder& b) {
    return b.Separated({.items = {{b.Bytes("a"), true}, {b.Bytes("b")}, {b.Bytes("c"), true}},
                        .separator = b.Bytes(","),
                        .tail = b.Bytes("x")});
  });
  for (const char* text : {"b", "a,b", "b,c", "a,b,c", "b,x", "a,b,c,x,x"})
    EXPECT_TRUE(Accepts(grammar, text)) << text;
  for (const char* text : {"", "a", "a,c", "c", "ab", "b,", ",b", "x", "b,x,c"})
    EXPECT_FALSE(Accepts(grammar, text)) << text;
  const Grammar optional = Built([](GrammarBuilder& b) {
    return b.Separated({.items = {{b.Bytes("a"), true}}, .separator = b.Bytes(",")});
  });
  EXPECT_TRUE(Accepts(optional, ""));
  EXPECT_TRUE(Accepts(optional, "a"));
  EXPECT_FALSE(Accepts(optional, ","));
}

TEST(GrammarBuilder, ReadsAnythingUpToTheFirstMark) {
  const Grammar grammar = Built([](GrammarBuilder& b) {
    return b.Row({b.Until("</a>"), b.Bytes("!")});
  });
  EXPECT_TRUE(Accepts(grammar, "</a>!"));
  EXPECT_TRUE(Accepts(grammar, "x<<</</a>!"));
  EXPECT_FALSE(Accepts(grammar, "x</a>y</a>!"));
  EXPECT_FALSE(Accepts(grammar, "x"));
}

TEST(GrammarBuilder, CallsRulesThatCallThemselves) {
  GrammarBuilder builder;
  const RuleId nested = builder.AddRule();
  builder.Define(nested,
                 builder.Row({builder.Bytes("("),
                              builder.Repeat(builder.Call(nested), 0, GrammarBuilder::kUnbounded),
                              builder.Bytes(")")}));
  const Grammar grammar = builder.Build(nested);
  EXPECT_TRUE(Accepts(grammar, "(()(()))"));
  EXPECT_FALSE(Accepts(grammar, "(()"));
  EXPECT_FALSE(Accepts(grammar, "())"));
}

TEST(GrammarBuilder, RefusesWhatHasNoTextAndWhatBeginsWithItself) {
  GrammarBuilder endless;
  const RuleId rule = endless.AddRule();
  endless.Define(rule, endless.Row({endless.Bytes("("), endless.Call(rule), endless.Bytes(")")}));
  EXPECT_EQ(RefusalOf([&] { endless.Build(rule); }), "no text can satisfy it");
  GrammarBuilder left;
  const RuleId a = left.AddRule(), b = left.AddRule();
  left.Define(a, left.Choice({left.Bytes("x"), left.Call(b)}));
  left.Define(b, left.Row({left.Call(a), left.Bytes("y")}));
  EXPECT_EQ(RefusalOf([&] { left.Build(a); }), "it refers to itself without a character between");
}

TEST(GrammarBuilder, LeavesNoWayWithoutAnEnd) {
  GrammarBuilder builder;
  const RuleId endless = builder.AddRule(), root = builder.AddRule();
  builder.Define(endless,
                 builder.Row({builder.Bytes("("), builder.Call(endless), builder.Bytes(")")}));
  builder.Define(root, builder.Choice({builder.Row({builder.Bytes("a"), builder.Call(endless)}),
                                       builder.Bytes("b")}));
  const Grammar grammar = builder.Build(root);
  Readings readings(grammar);
  EXPECT_EQ(readings.Next(readings.Begin(), 'a'), Readings::kDead);
  EXPECT_NE(readings.Next(readings.Begin(), 'b'), Readings::kDead);
}

TEST(GrammarBuilder, NamesItsLimits) {
  GrammarBuilder builder;
  const ExpressionId byte = builder.Bytes("a");
  EXPECT_NE(RefusalOf([&] { builder.Repeat(byte, 0, kMaxCount + 1); }).find("1024"),
            std::string::npos);
  // Repetitions of repetitions: 2^30 nodes if they were all made.
  ExpressionId many = byte;
  for (int i = 0; i < 3; ++i) many = builder.Repeat(many, kMaxCount, kMaxCount);
  const RuleId root = builder.AddRule();
  builder.Define(root, many);
  EXPECT_NE(RefusalOf([&] { builder.Build(root); }).find("more than"), std::string::npos);
}

TEST(GrammarBuilder, CharactersAreTheirUtf8) {
  const tokenizer::CodePointSet set({{0x41, 0x43}, {0x7FE, 0x801}, {0xD000, 0x10001}});
  const Grammar grammar = Built([&](GrammarBuilder& b) { return b.Characters(set); });
  for (uint32_t c = 0; c < 0x10100; ++c) {
    if (c >= 0xD800 && c <= 0xDFFF) continue;
    std::string text;
    tokenizer::AppendUtf8(c, text);
    ASSERT_EQ(Accepts(grammar, text), set.Contains(c)) << c;
  }
  EXPECT_FALSE(Accepts(grammar, "\xED\xA0\x80")) << "a surrogate";
  EXPECT_FALSE(Accepts(grammar, "\xC1\x81")) << "an overlong form of A";
}

Grammar Pattern(std::string_view pattern, bool is_search = false) {
  return Built([&](GrammarBuilder& b) {
    return PatternExpression(pattern, "p", is_search, b,
                             [&](const tokenizer::CodePointSet& set) { return b.Characters(set); });
  });
}

TEST(PatternExpression, MatchesTheWholeText) {
  const Grammar grammar = Pattern(R"((?:ab|c+)[0-9a-f]{2}\.\d?)");
  for (const char* text : {"ab0f.", "cccff.3"}) EXPECT_TRUE(Accepts(grammar, text)) << text;
  for (const char* text : {"ab0g.", "0f.", "ab0f.33", "xab0f."})
    EXPECT_FALSE(Accepts(grammar, text)) << text;
}

TEST(PatternExpression, SearchesWhereItIsNotAnchored) {
  EXPECT_TRUE(Accepts(Pattern("b", true), "abc"));
  EXPECT_FALSE(Accepts(Pattern("^b", true), "abc"));
  EXPECT_TRUE(Accepts(Pattern("^a", true), "abc"));
  EXPECT_TRUE(Accepts(Pattern("c$", true), "abc"));
  EXPECT_FALSE(Accepts(Pattern("^ab$", true), "abc"));
  EXPECT_TRUE(Accepts(Pattern("^(a|b)$", true), "b"));
}

TEST(PatternExpression, ClassesAreThoseOfAscii) {
  EXPECT_TRUE(Accepts(Pattern(R"(\d[\w-]\s)"), "7_\t"));
  EXPECT_TRUE(Accepts(Pattern(R"(\d[\w-]\s)"), "7- "));
  EXPECT_FALSE(Accepts(Pattern(R"(\d)"), "\u0663")) << "an Arabic digit";
  EXPECT_FALSE(Accepts(Pattern(R"(\w)"), "\u00e9"));
  EXPECT_FALSE(Accepts(Pattern("."), "\u2028"));
}

TEST(PatternExpression, RefusesWhatItCannotExpress) {
  for (const char* pattern : {"(?=a)b", "a(?<!b)", "(?>a)", "a++", "^a|b$", R"(\bword)", "a{2000}"})
    EXPECT_EQ(RefusalOf([&] { Pattern(pattern, true); }).substr(0, 2), "p:") << pattern;
}

}  // namespace
}  // namespace wideload::grammar
