#include "tokenizer/unicode.h"

#include <gtest/gtest.h>

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

TEST(Nfc, IsNotQuadraticInCombiningMarks) {
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
