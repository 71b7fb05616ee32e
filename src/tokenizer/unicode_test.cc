#include "tokenizer/unicode.h"

#include <gtest/gtest.h>

#include "base/testing.h"
#include "tokenizer/code_points.h"
#include "tokenizer/unicode_properties.h"

namespace wideload::tokenizer {
namespace {

TEST(Utf8, ReplacesEachMaximalSubpartOnce) {
  // The example of the Unicode standard, table 3-8 and following.
  EXPECT_EQ(WithReplacements("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41"),
            "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFDA");
  EXPECT_EQ(WithReplacements("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"), "\uFFFD\uFFFD\uFFFD\uFFFDA");
  EXPECT_EQ(WithReplacements("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");            // a surrogate
  EXPECT_EQ(WithReplacements("\xF4\x90\x80\x80"), "\uFFFD\uFFFD\uFFFD\uFFFD");  // over U+10FFFF
  EXPECT_EQ(WithReplacements("ok \xE6\x97\xA5 \xE6\x97"), "ok \u65E5 \uFFFD");
}

TEST(Utf8, TellsATruncatedCharacterFromAWrongOne) {
  EXPECT_TRUE(Utf8At("\xE6\x97", 0).is_truncated);
  EXPECT_FALSE(Utf8At("\xE6\x41", 0).is_truncated);
  EXPECT_FALSE(Utf8At("\xFF", 0).is_truncated);
  EXPECT_EQ(Utf8At("a\xF0\x9F\x98\x80", 1).code_point, 0x1F600u);
}

TEST(Nfc, ComposesReordersAndKeepsExclusions) {
  EXPECT_EQ(Nfc("e\u0301"), "\u00E9");
  EXPECT_EQ(Nfc("a\u0327\u0301"), Nfc("a\u0301\u0327"));  // classes 202 and 230
  EXPECT_EQ(Nfc("\u1100\u1161\u11A8"), "\uAC01");         // Hangul
  EXPECT_EQ(Nfc("\u0958"), "\u0915\u093C");               // composition exclusion
  EXPECT_EQ(Nfc("\u212B"), "\u00C5");                     // Angstrom sign
  EXPECT_EQ(Nfc("\uFB01 \u2460"), "\uFB01 \u2460");       // compatibility forms stay
  EXPECT_EQ(Nfc(std::string("a\0b\u0301", 5)), std::string("a\0b\u0301", 5));
}

TEST(Nfc, MarksReachOverWhatStandsBetween) {
  EXPECT_EQ(Nfc("\u6F22xe\u0323\u0301\u6F22"), "\u6F22x\u1EB9\u0301\u6F22");
  EXPECT_EQ(Nfc("\u00E9\u0323"), "\u1EB9\u0301");    // a composed letter is taken apart again
  EXPECT_EQ(Nfc("\uAC00\u11A8x"), "\uAC01x");        // syllable and trailing consonant
  EXPECT_EQ(Nfc("\u0301e\u0301"), "\u0301\u00E9");   // a mark at the begin
  EXPECT_EQ(Nfc("\u0B47\u0B3E"), "\u0B4B");          // two starters
  EXPECT_EQ(Nfc("\u2126\u0301"), "\u038F");          // a singleton and its mark
  EXPECT_EQ(Nfc("e\u0C3C\u0301"), "e\u0C3C\u0301");  // U+0C3C is younger than the tables
}

TEST(Unicode, CategoriesAndScriptsAreThoseOfUnicode16) {
  EXPECT_EQ(CategoryOf(0x10D50), GeneralCategory::kLu);  // Garay, of 16.0
  EXPECT_EQ(CategoryOf(0x1FAE9), GeneralCategory::kSo);  // of 16.0
  EXPECT_EQ(CategoryOf(0x088F), GeneralCategory::kCn);   // of 17.0
  EXPECT_EQ(CategoryOf(0x10FFFF), GeneralCategory::kCn);
  EXPECT_TRUE(PropertyNamed("Han")->Contains(0x3007));
  EXPECT_FALSE(PropertyNamed("Han")->Contains(0x3001));
  EXPECT_EQ(PropertyNamed("uppercase letter"), nullptr);
  EXPECT_EQ(PropertyNamed(""), nullptr);
  EXPECT_EQ(*PropertyNamed("L"), *PropertyNamed("let_ter"));
}

TEST(CodePointSet, HasTheAlgebraOfSets) {
  const CodePointSet some({{10, 20}, {30, 40}, {21, 25}});
  EXPECT_EQ(some.ranges(), (std::vector<CodePointSet::Range>{{10, 25}, {30, 40}}));
  EXPECT_EQ(some.Complement().Complement(), some);
  EXPECT_EQ(some.And(CodePointSet({{24, 31}})), CodePointSet({{24, 25}, {30, 31}}));
  EXPECT_EQ(CodePointSet().Complement().ranges(),
            (std::vector<CodePointSet::Range>{{0, kMaxCodePoint}}));
  const CharacterClass letters(*PropertyNamed("Lo"));
  for (uint32_t c = 0; c <= kMaxCodePoint; ++c)
    ASSERT_EQ(letters.Contains(c), CategoryOf(c) == GeneralCategory::kLo) << c;
}

TEST(Nfc, IsNotQuadraticInCombiningMarks) {
  const TimeLimit limit;
  // 400,000 marks of alternating class: 10^10 steps if each were moved past the others.
  std::string marks = "a";
  for (int i = 0; i < 200'000; ++i) marks += "\u0301\u0323";
  const std::string composed = Nfc(marks);
  EXPECT_EQ(composed.substr(0, 5), "\u1EA1\u0323");
  EXPECT_EQ(composed.substr(composed.size() - 2), "\u0301");
}

TEST(ByteAlphabet, IsABijection) {
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  EXPECT_EQ(FromByteAlphabet(ToByteAlphabet(all)), all);
  EXPECT_EQ(ToByteAlphabet(" \n\xAD"), "\u0120\u010A\u0143");
  EXPECT_EQ(FromByteAlphabet("a b"), std::nullopt);
  EXPECT_EQ(FromByteAlphabet("\u65E5"), std::nullopt);
}

}  // namespace
}  // namespace wideload::tokenizer
