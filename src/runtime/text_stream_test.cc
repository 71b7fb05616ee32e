#include "runtime/text_stream.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "base/testing.h"
#include "runtime/text_limits.h"
#include "tokenizer/small_tokenizer.h"

namespace wideload::runtime {
namespace {

// Ids 0 to 255 are bytes, 256 is "ab".
const tokenizer::Tokenizer& Bytes() {
  static const tokenizer::Tokenizer tokenizer = tokenizer::Tokenizer::FromText(
      DumpJson(tokenizer::SmallTokenizerJson({"a b"})), "small.json");
  return tokenizer;
}

// What is shown for each byte of `text` as a token, joined by '|'; '!' when it stopped.
std::string Shown(const std::string& text, const std::vector<std::string>& stop) {
  TextStream stream(Bytes(), stop, false);
  std::string shown;
  for (const char byte : text) shown += stream.Feed(static_cast<unsigned char>(byte)) + "|";
  shown += stream.Flush();
  return shown + (stream.stopped() ? "!" : "");
}

TEST(TextStream, HoldsBackWhatMayBeginAStopText) {
  EXPECT_EQ(Shown("xyz", {}), "x|y|z|");
  EXPECT_EQ(Shown("xaab", {"aab"}), "x||||!");
  EXPECT_EQ(Shown("xaaab", {"aab"}), "x|||a||!");
  EXPECT_EQ(Shown("abac", {"abad"}), "|||abac|");
  EXPECT_EQ(Shown("ababad", {"abad"}), "|||ab|||!");
  EXPECT_EQ(Shown("abcab", {"abcabd", "b"}), "|a||||!");
  EXPECT_EQ(Shown("a stop here", {"stop"}), "a| ||||||||||!");
}

TEST(TextStream, TakesTheLongestOfTheStopTextsThatEndAtOneByte) {
  EXPECT_EQ(Shown("xabc", {"bc", "abc", "c"}), "x||||!");
}

TEST(TextStream, CutsATokenWithinWhichAStopTextEnds) {
  TextStream stream(Bytes(), {"a"}, false);
  EXPECT_EQ(stream.Feed('x'), "x");
  EXPECT_EQ(stream.Feed(256), "");
  EXPECT_TRUE(stream.stopped());
  EXPECT_EQ(stream.text(), "x");
  EXPECT_EQ(stream.Feed('y'), "");
  EXPECT_EQ(stream.Flush(), "");
}

// With a search through all held text for every token this takes minutes.
TEST(TextStream, TakesTimeInProportionToTheText) {
  const TimeLimit limit;
  const std::string almost(kMaxStopBytes - 1, 'a');
  std::vector<std::string> stop;
  for (size_t i = 0; i < kMaxStopStrings; ++i)
    stop.push_back(almost + static_cast<char>('b' + i % 20));
  TextStream stream(Bytes(), stop, false);
  for (int i = 0; i < 100'000; ++i) stream.Feed('a');
  EXPECT_EQ(stream.text().size(), 100'000 - almost.size());
  EXPECT_FALSE(stream.stopped());
}

TEST(TextLimits, RefuseStopTextsByNumberAndLength) {
  EXPECT_EQ(InvalidStop(std::vector<std::string>{"a", "b"}), "");
  EXPECT_NE(InvalidStop(std::vector<std::string>{""}), "");
  EXPECT_NE(InvalidStop(std::vector<std::string>{std::string(kMaxStopBytes + 1, 'a')}), "");
  EXPECT_NE(InvalidStop(std::vector<std::string>(kMaxStopStrings + 1, "a")), "");
  EXPECT_THROW(TextStream(Bytes(), {""}, false), Error);
}

TEST(TextLimits, BoundATextByTheLongestToken) {
  EXPECT_GE(MaxTextBytes(Bytes(), 100), 200);
  EXPECT_LT(MaxTextBytes(Bytes(), 100), 1 << 20);
}

}  // namespace
}  // namespace wideload::runtime
