#include "tokenizer/tiktoken.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tokenizer/small_tokenizer.h"

namespace wideload::tokenizer {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string TiktokenRefusal(const std::string& model, const Json& config = Json::object()) {
  try {
    ParseTiktoken(model, "t.model", JsonFields(config, "c.json"));
  } catch (const Error& e) {
    return e.what();
  }
  return "accepted";
}

TEST(Tiktoken, MergesAreThePairsOfTokensThatMakeAToken) {
  // "ab" is 256, "abc" is 257, "bc" is 258.
  const std::string model = SmallTiktokenModel() + "YWI= 256\nYWJj 257\r\n\nYmM= 258";
  const Json config = Json::object();
  const TokenizerSpec spec = ParseTiktoken(model, "t.model", JsonFields(config, "c.json"));
  std::vector<std::vector<int32_t>> merges;
  for (const Merge& merge : spec.bpe.merges)
    merges.push_back({merge.left, merge.right, merge.merged, merge.rank});
  EXPECT_THAT(merges, testing::UnorderedElementsAre(
                          ElementsAre('a', 'b', 256, 256), ElementsAre(256, 'c', 257, 257),
                          ElementsAre('a', 258, 257, 257), ElementsAre('b', 'c', 258, 258)));
}

TEST(Tiktoken, TwoHundredFiftySixAddedTokensFollowTheVocabulary) {
  const Json config = Json::parse(R"({"added_tokens_decoder": {
      "256": {"content": "[BOS]", "special": true}, "511": {"content": "<think>"}}})");
  const TokenizerSpec spec =
      ParseTiktoken(SmallTiktokenModel(), "t.model", JsonFields(config, "c.json"));
  ASSERT_EQ(spec.vocabulary.size(), 512u);
  EXPECT_EQ(spec.vocabulary[256].text, "[BOS]");
  EXPECT_TRUE(spec.vocabulary[256].special);
  EXPECT_EQ(spec.vocabulary[257].text, "<|reserved_token_257|>");
  EXPECT_FALSE(spec.vocabulary[257].special);
  EXPECT_EQ(spec.vocabulary[511].text, "<think>");
}

TEST(Tiktoken, RefusesByNameWhatIsNoVocabularyOfThatKind) {
  const std::string bytes = SmallTiktokenModel();
  EXPECT_EQ(TiktokenRefusal(bytes), "accepted");
  EXPECT_THAT(TiktokenRefusal(""), HasSubstr("t.model has no tokens"));
  EXPECT_THAT(TiktokenRefusal("YQ== 0\n"), HasSubstr("t.model has no token for byte 0x00"));
  for (const char* line :
       {"YWI=", "YWI 256", "YWI= -1", "YWI= 256 x", "Y?I= 256", "YWI= 99999999999"})
    EXPECT_THAT(
        TiktokenRefusal(bytes + line),
        HasSubstr("t.model line 257 is \"" + std::string(line) + "\"; it must be a token in"));
  EXPECT_THAT(TiktokenRefusal(bytes + "YQ== 256"),
              HasSubstr("line 257 has a token that a line above"));
  EXPECT_THAT(TiktokenRefusal(bytes + "YWI= 255"),
              HasSubstr("the ranks of 257 tokens must be 0 to 256"));
  EXPECT_THAT(TiktokenRefusal(bytes + "YWI= 257"), HasSubstr("t.model has the rank 257"));
  EXPECT_THAT(TiktokenRefusal(bytes + std::string(4 * 200, 'A') + " 256"),
              HasSubstr("has a token of 600 bytes; at most 512"));
  EXPECT_THAT(TiktokenRefusal(bytes, {{"tokenizer_class", "QWenTokenizer"}}),
              HasSubstr("c.json: tokenizer_class is \"QWenTokenizer\"; supported is TikTok"));
  const auto added = [](const char* id, const Json& token) {
    return Json{{"added_tokens_decoder", {{id, token}}}};
  };
  EXPECT_THAT(TiktokenRefusal(bytes, added("512", {{"content", "x"}})),
              HasSubstr("c.json: added_tokens_decoder has the id 512; ids of added tokens lie in "
                        "[256, 511]"));
  EXPECT_THAT(TiktokenRefusal(bytes, added("256", {{"content", "x"}, {"lstrip", true}})),
              HasSubstr("c.json: added_tokens_decoder.256.lstrip is true; supported is false"));
  EXPECT_THAT(TiktokenRefusal(bytes, added("256", {{"content", "<|reserved_token_257|>"}})),
              HasSubstr("the ids 256 and 257 are both <|reserved_token_257|>"));
}

TEST(Tiktoken, SlicesEndAfterLongRunsAndAfter400000Characters) {
  EXPECT_THAT(SliceEnds(""), ElementsAre(0));
  EXPECT_THAT(SliceEnds(std::string(25'000, 'a')), ElementsAre(25'000));
  EXPECT_THAT(SliceEnds(std::string(25'001, 'a')), ElementsAre(25'000, 25'001));
  // U+001F is white space to Python.
  EXPECT_THAT(SliceEnds(std::string(20'000, ' ') + std::string(20'000, '\x1F') + "ab"),
              ElementsAre(25'000, 40'002));
  std::string words;
  for (int i = 0; i < 100'001; ++i) words += "\u00E9\u00E9 x";  // four characters, six bytes
  EXPECT_THAT(SliceEnds(words), ElementsAre(600'000, 600'006));
}

}  // namespace
}  // namespace wideload::tokenizer
