#include "tokenizer/pre_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "base/error.h"

namespace wideload::tokenizer {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> Pieces(const PreTokenizer& pre_tokenizer, std::string_view text) {
  RegexScratch scratch;
  std::vector<std::string> pieces;
  PreTokenize(pre_tokenizer, text, scratch,
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

std::string RefusalOf(std::string_view regex) {
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

TEST(Regex, RefusesByNameWhatTheEnginesReadDifferently) {
  EXPECT_EQ(TranslatePattern(R"([\d\-]a{2,}\{)", "w"), R"([\d\-]a{2,}\{)");
  for (const auto& [regex, named] : std::vector<std::pair<std::string, std::string>>{
           {R"([\p{L}&&[^\p{Han}]]+)", "the intersection &&"},
           {R"([a[b]])", "a class within a class"},
           {R"([]a])", "] as the first"},
           {R"(\w+)", "the escape \\w"},
           {R"(a\h)", "the escape \\h"},
           {R"(^a)", "an anchor"},
           {R"(a$)", "an anchor"},
           {R"(\p{N}{1,3}+)", "}+"},
           {R"(a{2}?)", "{n}?"},
           {R"(a{,3})", "{ that is no"},
           {R"((?s:a))", "the group (?s"},
           {R"((*UCP)a)", "a control verb"},
           {R"([^\S])", "\\S within a class"},
           {R"(\pL)", "\\p without {name}"},
           {R"((a)\1)", "the escape \\1"},
           {"a\\", "the escape \\"}}) {
    EXPECT_THAT(RefusalOf(regex), HasSubstr("t.json: pattern: the regular expression has " + named))
        << regex;
  }
  EXPECT_THAT(RefusalOf("(a"), HasSubstr("t.json: pattern does not compile: missing"));
  EXPECT_THAT(RefusalOf(R"(\p{Klingon})"), HasSubstr("does not compile"));
  EXPECT_THAT(RefusalOf(std::string(20000, 'a')), HasSubstr("it must have at most 16384"));
}

TEST(Regex, ACatastrophicExpressionEndsInAnError) {
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

TEST(Regex, LongRunsStayWithinTheBounds) {
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
