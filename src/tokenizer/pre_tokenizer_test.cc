#include "tokenizer/pre_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "base/error.h"
#include "base/testing.h"

namespace wideload::tokenizer {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> Pieces(const PreTokenizer& pre_tokenizer, std::string_view text) {
  RegexScratch scratch;
  std::vector<std::string> pieces;
  PreTokenize(pre_tokenizer, text, true, scratch,
              [&](std::string_view piece) { pieces.emplace_back(piece); });
  return pieces;
}

std::vector<std::string> Pieces(std::string_view regex, std::string_view text,
                                SplitBehavior behavior = SplitBehavior::kIsolated,
                                bool invert = false) {
  PreTokenizer pre_tokenizer;
  pre_tokenizer.splits.push_back(
      {.pattern = Regex(regex, "test"), .behavior = behavior, .invert = invert});
  return Pieces(pre_tokenizer, text);
}

std::string RegexRefusal(std::string_view regex) {
  try {
    Regex(regex, "t.json: pattern");
  } catch (const Error& e) {
    return e.what();
  }
  return "accepted";
}

TEST(Split, EachBehaviorTreatsMatchesItsWay) {
  const std::string_view text = "a--b-c";
  EXPECT_THAT(Pieces("-", text), ElementsAre("a", "-", "-", "b", "-", "c"));
  EXPECT_THAT(Pieces("-", text, SplitBehavior::kRemoved), ElementsAre("a", "b", "c"));
  EXPECT_THAT(Pieces("-", text, SplitBehavior::kContiguous), ElementsAre("a", "--", "b", "-", "c"));
  EXPECT_THAT(Pieces("-", text, SplitBehavior::kMergedWithPrevious),
              ElementsAre("a-", "-", "b-", "c"));
  EXPECT_THAT(Pieces("-", text, SplitBehavior::kMergedWithNext), ElementsAre("a", "-", "-b", "-c"));
}

TEST(Split, InvertMakesMatchesOfTheRest) {
  EXPECT_THAT(Pieces("[a-z]+", "ab--c", SplitBehavior::kRemoved, true), ElementsAre("ab", "c"));
}

TEST(Split, EmptyMatchesOnlyCut) {
  EXPECT_THAT(Pieces("(?=b)", "abab"), ElementsAre("a", "ba", "b"));
  EXPECT_THAT(Pieces("x*", "\u00E9x\u00E9"), ElementsAre("\u00E9", "x", "\u00E9"));
  EXPECT_THAT(Pieces("a", ""), ElementsAre());
}

// What the pre-tokenizer of Llama 3 makes of text written for this test.
TEST(PreTokenizer, Llama3TakesThreeDigitsAndContractions) {
  const std::string_view regex =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  EXPECT_THAT(
      Pieces(regex, "We'LL ship 12345 boxes...\n\n  today "),
      ElementsAre("We", "'LL", " ship", " ", "123", "45", " boxes", "...\n\n", " ", " today", " "));
  EXPECT_THAT(Pieces(regex, "\u00FCber \u65E5\u672C\t x"),
              ElementsAre("\u00FCber", " \u65E5\u672C", "\t", " x"));
}

// What the three splits of DeepSeek make of text written for this test.
TEST(PreTokenizer, DeepSeekSplitsDigitsThenKanaThenWords) {
  PreTokenizer pre_tokenizer;
  for (const std::string_view regex :
       {R"(\p{N}{1,3})", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
        "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?"
        "[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"})
    pre_tokenizer.splits.push_back({.pattern = Regex(regex, "test")});
  EXPECT_THAT(Pieces(pre_tokenizer, "x=1234 \u6771\u4EAC\u30BF\u30EF\u30FC tower, don't (ok)\n"),
              ElementsAre("x", "=", "123", "4", " ", "\u6771\u4EAC\u30BF\u30EF\u30FC", " tower",
                          ",", " don", "'t", " (", "ok", ")\n"));
}

TEST(PreTokenizer, ByteLevelPrefixesASpaceAndUsesGpt2sExpression) {
  PreTokenizer pre_tokenizer{.splits = {},
                             .add_prefix_space = true,
                             .byte_level_regex = Regex(ByteLevelPattern(), "test")};
  EXPECT_THAT(Pieces(pre_tokenizer, "it's 12345  now"),
              ElementsAre(" it", "'s", " 12345", " ", " now"));
  EXPECT_THAT(Pieces(pre_tokenizer, " it"), ElementsAre(" it"));
  EXPECT_THAT(Pieces(pre_tokenizer, ""), ElementsAre());
}

TEST(Regex, WhiteSpaceIsTheUnicodeProperty) {
  // U+180E is white space to PCRE2 alone, U+0085 and U+3000 to Oniguruma too.
  EXPECT_THAT(Pieces(R"(\s+)", "a\u180Eb"), ElementsAre("a\u180Eb"));
  EXPECT_THAT(Pieces(R"([\s]+)", "a\u0085\u3000b"), ElementsAre("a", "\u0085\u3000", "b"));
  EXPECT_THAT(Pieces(R"(\S+)", "a\u2003b"), ElementsAre("a", "\u2003", "b"));
}

TEST(Regex, RefusesByNameWhatItDoesNotImplement) {
  for (const auto& [regex, named] : std::vector<std::pair<std::string, std::string>>{
           {R"([]a])", "] as the first"},
           {R"([[:alpha:]])", "a bracket [:"},
           {R"([\w-z])", "- behind a class"},
           {R"([a-\d])", "- before a class"},
           {R"(a\h)", "the escape \\h"},
           {R"(^a)", "an anchor"},
           {R"(a$)", "an anchor"},
           {R"(\p{N}{1,3}+)", "}+"},
           {R"(a{2}?)", "{n}?"},
           {R"(a{,3})", "{ that is no"},
           {R"(a{x})", "{ that is no"},
           {R"(a{1,2000})", "a count above 1000"},
           {R"(a{99999999999})", "a count above 1000"},
           {R"(a**)", "a quantifier of a quantifier"},
           {R"((?s:a))", "the group (?s"},
           {R"((*UCP)a)", "a control verb"},
           {R"((?<=a+)b)", "a look-behind whose length is not fixed"},
           {R"((?i:\p{L}))", "\\p in (?i:"},
           {R"((?i:\u00e9))", "a character beyond ASCII in (?i:"},
           {R"(\pL)", "\\p without {name}"},
           {R"(\p{Klingon})", "the property Klingon"},
           {R"((a)\1)", "the escape \\1"},
           {std::string(60, '(') + std::string(60, ')'), "groups and classes nested too deeply"},
           {"a\\", "the escape \\"}}) {
    EXPECT_THAT(RegexRefusal(regex),
                HasSubstr("t.json: pattern: the regular expression has " + named))
        << regex;
  }
  for (const char* regex : {"(a", "a)", "[a", "*a", "[b-a]", "a{3,2}", R"(\u12)", R"(\x{110000})"})
    EXPECT_THAT(RegexRefusal(regex), HasSubstr("t.json: pattern is no regular expression: "))
        << regex;
  EXPECT_THAT(RegexRefusal(std::string(20000, 'a')), HasSubstr("it must have at most 16384"));
  EXPECT_THAT(RegexRefusal("(?:(?:(?:ab){1000}){1000}){1000}"), HasSubstr("larger than 50000"));
}

TEST(Regex, ClassesNestAndIntersect) {
  EXPECT_THAT(Pieces(R"([a-z&&[^aeiou]]+)", "banana"), ElementsAre("b", "a", "n", "a", "n", "a"));
  EXPECT_THAT(Pieces(R"([\p{Lo}&&[^\p{Han}]]+)", "\u3042\u6F22\u3044\u3046"),
              ElementsAre("\u3042", "\u6F22", "\u3044\u3046"));
  EXPECT_THAT(Pieces("[^a[bc]]+", "xxabyy"), ElementsAre("xx", "ab", "yy"));
  EXPECT_THAT(Pieces(R"([^\S\n]+)", "a \t\nb"), ElementsAre("a", " \t", "\nb"));
}

// As Oniguruma has it: superscript digits and fractions of Latin-1 are word characters of \\w
// alone.
TEST(Regex, WordCharactersDependOnThePlace) {
  EXPECT_THAT(Pieces(R"(\w+)", "a\u00B2\u00BD.b"), ElementsAre("a\u00B2\u00BD", ".", "b"));
  EXPECT_THAT(Pieces(R"([\w]+)", "a\u00B2\u00BD.b"), ElementsAre("a", "\u00B2\u00BD.", "b"));
}

TEST(Regex, QuantifiersAreGreedyLazyOrPossessive) {
  EXPECT_THAT(Pieces("a+?b?", "aab"), ElementsAre("a", "ab"));
  EXPECT_THAT(Pieces("<.*>", "<a><b>"), ElementsAre("<a><b>"));
  EXPECT_THAT(Pieces("<.*?>", "<a><b>"), ElementsAre("<a>", "<b>"));
  EXPECT_THAT(Pieces("a++a|b", "aab"), ElementsAre("aa", "b"));
  EXPECT_THAT(Pieces("(?:ab){2,3}", "abababab"), ElementsAre("ababab", "ab"));
  EXPECT_THAT(Pieces("(?:ab){2,3}?", "abababab"), ElementsAre("abab", "abab"));
  EXPECT_THAT(Pieces("(?:a|ab)(?:c|bcd)x?", "abcd"), ElementsAre("abcd"));
  EXPECT_THAT(Pieces("(?>a|ab)c", "abcac"), ElementsAre("abc", "ac"));
  EXPECT_THAT(Pieces("(?:a*)*b", "aaab"), ElementsAre("aaab"));
  EXPECT_THAT(Pieces("(?:a?|b)*c", "abbac"), ElementsAre("abbac"));
}

TEST(Regex, LooksAheadAndBehindByCharacters) {
  EXPECT_THAT(Pieces("(?<=\u00E9)b", "\u00E9bab"), ElementsAre("\u00E9", "b", "ab"));
  EXPECT_THAT(Pieces("(?<!a|xy)b", "abxybb"), ElementsAre("abxyb", "b"));
  EXPECT_THAT(Pieces("b(?=c)", "bcb"), ElementsAre("b", "cb"));
  EXPECT_THAT(Pieces("b(?!c)", "bcb"), ElementsAre("bc", "b"));
}

TEST(Regex, CaseFoldsAsciiAndTheTwoThatFoldToIt) {
  EXPECT_THAT(Pieces("(?i:'s)x", "'Sx'\u017Fx'tx"), ElementsAre("'Sx", "'\u017Fx", "'tx"));
  EXPECT_THAT(Pieces("(?i:[k-l])+", "K\u212Al"), ElementsAre("K\u212Al"));
}

TEST(Regex, ACatastrophicExpressionEndsInAnError) {
  const TimeLimit limit;
  const Regex regex("(?:a|a|aa)+[bc]", "t.json: pattern");
  RegexScratch scratch;
  try {
    regex.FindAll(std::string(5000, 'a'), scratch);
    FAIL() << "found an end";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kResource);
    EXPECT_THAT(e.what(), HasSubstr("t.json: pattern: searching a text of 5000 bytes"));
  }
}

// Each search alone is cheap: it ends after the first character, having looked at the whole text.
TEST(Regex, TheBoundIsForAllSearchesInATextTogether) {
  const TimeLimit limit;
  const Regex regex("(?=(?:a|b)*c)a|a", "t.json: pattern");
  RegexScratch scratch;
  EXPECT_THROW(regex.FindAll(std::string(100'000, 'a'), scratch), Error);
}

TEST(Regex, LongRunsStayWithinTheBounds) {
  const TimeLimit limit;
  const std::string_view regex = R"(\s*[\r\n]+|\s+(?!\S)|\s+|\p{L}+)";
  EXPECT_THAT(Pieces(regex, std::string(300'000, ' ') + "a"),
              ElementsAre(std::string(299'999, ' '), " ", "a"));
  EXPECT_THAT(Pieces("(?:ab)+",
                     [] {
                       std::string text;
                       for (int i = 0; i < 200'000; ++i) text += "ab";
                       return text;
                     }())
                  .size(),
              1u);
}

}  // namespace
}  // namespace wideload::tokenizer
