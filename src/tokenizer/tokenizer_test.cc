#include "tokenizer/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <random>
#include <thread>

#include "base/error.h"
#include "base/testing.h"
#include "tokenizer/detokenizer.h"
#include "tokenizer/small_tokenizer.h"

namespace wideload::tokenizer {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

Tokenizer From(const Json& json) { return Tokenizer::FromText(DumpJson(json), "t.json"); }

Json Added(int id, const std::string& content, const Json& flags = Json::object()) {
  Json token = {{"id", id}, {"content", content}, {"normalized", false}, {"special", true}};
  token.update(flags);
  return token;
}

std::string RefusalOf(const Json& json) {
  try {
    From(json);
  } catch (const Error& e) {
    return e.what();
  }
  return "accepted";
}

TEST(Bpe, MergesTheLowestRankFirstAndTheLeftmostOfEquals) {
  const Tokenizer tokenizer = From(SmallTokenizerJson({"b c", "a b", "a a", "bc d"}));
  EXPECT_THAT(tokenizer.Encode("abc"), ElementsAre('a', 256));  // b c before a b
  EXPECT_THAT(tokenizer.Encode("aaa"), ElementsAre(258, 'a'));
  EXPECT_THAT(tokenizer.Encode("aab"), ElementsAre('a', 257));   // a b before a a
  EXPECT_THAT(tokenizer.Encode("abcd"), ElementsAre('a', 259));  // bc d
}

TEST(Bpe, IgnoreMergesTakesAWholePieceThatIsAToken) {
  Json json = SmallTokenizerJson({"a b"});
  json["model"]["vocab"]["xyz"] = 300;  // no merges lead to it
  EXPECT_THAT(From(json).Encode("xyz"), ElementsAre('x', 'y', 'z'));
  json["model"]["ignore_merges"] = true;
  EXPECT_THAT(From(json).Encode("xyz"), ElementsAre(300));
  EXPECT_THAT(From(json).Encode("xyza"), ElementsAre('x', 'y', 'z', 'a'));
}

TEST(Bpe, TakesMergesAsPairsToo) {
  Json json = SmallTokenizerJson({"a b"});
  json["model"]["merges"] = Json::array({Json::array({"a", "b"})});
  EXPECT_THAT(From(json).Encode("ab"), ElementsAre(256));
}

TEST(Bpe, LongPiecesAreMergedInOrderNLogN) {
  const TimeLimit limit;
  std::vector<std::string> merges;
  std::string token = "a";
  for (int i = 0; i < 10; ++i, token += token) merges.push_back(token + " " + token);
  const Tokenizer tokenizer = From(SmallTokenizerJson(merges));
  EXPECT_EQ(tokenizer.Encode(std::string(1 << 17, 'a')), std::vector<int32_t>(128, 265));
}

TEST(AddedTokens, AreFoundInsideTextLongestFirst) {
  Json json = SmallTokenizerJson();
  json["added_tokens"] = {Added(256, "<a>"), Added(257, "<a>b"), Added(60, "<")};
  const Tokenizer tokenizer = From(json);
  EXPECT_THAT(tokenizer.Encode("x<a>by<a><"), ElementsAre('x', 257, 'y', 256, '<'));
  EXPECT_THAT(tokenizer.EncodePlain("<a>"), ElementsAre('<', 'a', '>'));
  EXPECT_EQ(tokenizer.Decode(std::vector<int32_t>{'x', 257}), "x<a>b");
  EXPECT_TRUE(tokenizer.IsSpecial(257));
  EXPECT_FALSE(tokenizer.IsSpecial('x'));
}

TEST(AddedTokens, StripAndSingleWordAsTheirFlagsSay) {
  Json json = SmallTokenizerJson();
  json["added_tokens"] = {Added(256, "<l>", {{"lstrip", true}}),
                          Added(257, "<r>", {{"rstrip", true}}),
                          Added(258, "cat", {{"single_word", true}})};
  const Tokenizer tokenizer = From(json);
  EXPECT_THAT(tokenizer.Encode("a \n\u3000<l> b"), ElementsAre('a', 256, ' ', 'b'));
  EXPECT_THAT(tokenizer.Encode("a <r> \n<r>b"), ElementsAre('a', ' ', 257, 257, 'b'));
  EXPECT_THAT(tokenizer.Encode("<r> <l>"), ElementsAre(257, 256));
  EXPECT_THAT(tokenizer.Encode("cat-cats"), ElementsAre(258, '-', 'c', 'a', 't', 's'));
  EXPECT_THAT(tokenizer.Encode("\u00E9cat").size(), 5u);
}

TEST(AddedTokens, NormalizedOnesAreFoundInTheNormalisedText) {
  Json json = SmallTokenizerJson();
  json["normalizer"] = {{"type", "NFC"}};
  json["added_tokens"] = {Added(256, "\u1EA1", {{"normalized", true}}), Added(257, "\u1E05")};
  const Tokenizer tokenizer = From(json);
  EXPECT_THAT(tokenizer.Encode("a\u0323"), ElementsAre(256));
  EXPECT_THAT(tokenizer.Encode("b\u0323"), ElementsAre(0xE1, 0xB8, 0x85));  // not in the raw text
  EXPECT_THAT(tokenizer.Encode("\u1E05"), ElementsAre(257));
}

// A search that starts anew at each place would take 10^10 steps for the first text, and one that
// looks at all marks for each token as many for the second.
TEST(AddedTokens, AreFoundInLinearTime) {
  const TimeLimit limit;
  Json json = SmallTokenizerJson({"a a"});
  json["added_tokens"] = {Added(300, std::string(100'000, 'a') + "b"), Added(301, "<|>")};
  const Tokenizer tokenizer = From(json);
  EXPECT_EQ(tokenizer.Encode(std::string(200'000, 'a')).size(), 100'000u);
  std::vector<TextPart> parts;
  for (int i = 0; i < 100'000; ++i) {
    parts.push_back({.text = "<|>", .is_plain = false});
    parts.push_back({.text = "<|>", .is_plain = true});
  }
  EXPECT_EQ(tokenizer.EncodeParts(parts).size(), 400'000u);
}

TEST(Bpe, ShortAndLongPiecesAreMergedAlike) {
  // Random merges over three letters; what is done with a piece of up to 32 symbols is done with a
  // longer one whose rest takes no part.
  std::mt19937 random(5);
  std::vector<std::string> words = {"a", "b", "c"};
  std::vector<std::string> merges;
  while (merges.size() < 60) {
    const std::string left = words[random() % words.size()];
    const std::string right = words[random() % words.size()];
    if (std::find(words.begin(), words.end(), left + right) != words.end()) continue;
    words.push_back(left + right);
    merges.push_back(left + " " + right);
  }
  const Tokenizer tokenizer = From(SmallTokenizerJson(merges));
  for (int i = 0; i < 2000; ++i) {
    std::string piece;
    for (uint32_t n = 1 + static_cast<uint32_t>(random() % 30); n > 0; --n)
      piece += static_cast<char>('a' + random() % 3);
    std::vector<int32_t> expected = tokenizer.Encode(piece);
    expected.insert(expected.end(), 40, '.');
    EXPECT_EQ(tokenizer.Encode(piece + std::string(40, '.')), expected) << piece;
  }
}

TEST(EncodeParts, PlainPartsNeverGiveOrCompleteAnAddedToken) {
  Json json = SmallTokenizerJson({"\n \n"});
  json["normalizer"] = {{"type", "NFC"}};
  json["added_tokens"] = {Added(300, "<a>"), Added(301, "<n>", {{"normalized", true}})};
  const Tokenizer tokenizer = From(json);
  const auto encode = [&](std::vector<TextPart> parts) { return tokenizer.EncodeParts(parts); };
  EXPECT_THAT(encode({{"<a>", false}, {"<a><n>", true}, {"<n>", false}}),
              ElementsAre(300, '<', 'a', '>', '<', 'n', '>', 301));
  EXPECT_THAT(encode({{"<a", false}, {">", true}}), ElementsAre('<', 'a', '>'));
  EXPECT_THAT(encode({{"<", true}, {"n>", false}}), ElementsAre('<', 'n', '>'));
  // The seam itself is no border of pieces.
  EXPECT_THAT(encode({{"x\n", false}, {"\ny", true}}), ElementsAre('x', 256, 'y'));
  EXPECT_THAT(encode({{"<a", false}, {">", false}}), ElementsAre(300));
}

// A vocabulary as SentencePiece makes them: characters, bytes, U+2581 for blanks.
Json SentencePieceJson() {
  Json vocab = {{"<unk>", 0}, {"<s>", 1}, {"\u2581", 2}, {"a", 3}, {"b", 4}, {"\u2581a", 5}};
  for (int byte = 0; byte < 256; ++byte) vocab[fmt::format("<0x{:02X}>", byte)] = 6 + byte;
  const Json replace = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "\u2581"}};
  const Json back = {{"type", "Replace"}, {"pattern", {{"String", "\u2581"}}}, {"content", " "}};
  return {{"added_tokens", {Added(1, "<s>")}},
          {"normalizer",
           {{"type", "Sequence"},
            {"normalizers", {{{"type", "Prepend"}, {"prepend", "\u2581"}}, replace}}}},
          {"decoder",
           {{"type", "Sequence"},
            {"decoders",
             {back,
              {{"type", "ByteFallback"}},
              {{"type", "Fuse"}},
              {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}}}}},
          {"model",
           {{"type", "BPE"},
            {"vocab", vocab},
            {"merges", {"\u2581 a"}},
            {"unk_token", "<unk>"},
            {"fuse_unk", true},
            {"byte_fallback", true}}}};
}

TEST(SentencePiece, TheBlankStandsBeforeEachTextBetweenAddedTokensAndNowhereElse) {
  const Tokenizer tokenizer = From(SentencePieceJson());
  const auto encode = [&](std::vector<TextPart> parts) { return tokenizer.EncodeParts(parts); };
  EXPECT_THAT(tokenizer.Encode("a a<s>b"), ElementsAre(5, 5, 1, 2, 4));
  EXPECT_THAT(encode({{"<s>", false}, {"a", true}, {"b", false}}), ElementsAre(1, 5, 4));
  EXPECT_THAT(encode({{"b", false}, {"<s>", true}}), ElementsAre(2, 4, 66, 121, 68));
}

TEST(SentencePiece, UnknownCharactersAreBytesOrOneUnknownToken) {
  Json json = SentencePieceJson();
  EXPECT_THAT(From(json).Encode("\u00E9"), ElementsAre(2, 6 + 0xC3, 6 + 0xA9));
  json["model"]["vocab"].erase("<0xC3>");
  EXPECT_THAT(From(json).Encode("\u00E9\u00E8b"), ElementsAre(2, 0, 4));
  json["model"]["fuse_unk"] = false;
  EXPECT_THAT(From(json).Encode("\u00E9\u00E8b"), ElementsAre(2, 0, 0, 4));
}

TEST(SentencePiece, ARunOfBytesIsTextOrReplacementsAsAWhole) {
  const Tokenizer tokenizer = From(SentencePieceJson());
  const auto byte = [](int value) { return 6 + value; };
  EXPECT_EQ(tokenizer.Decode(std::vector<int32_t>{5, byte(0xC3), byte(0xA9), 4}), "a\u00E9b");
  EXPECT_EQ(tokenizer.Decode(std::vector<int32_t>{5, byte(0xC3), byte(0xA9), byte(0xC3), 4}),
            "a\uFFFD\uFFFD\uFFFDb");
  StreamingDetokenizer stream(tokenizer);
  EXPECT_EQ(stream.Push(byte('x')), "");
  EXPECT_EQ(stream.Push(5), "x a");  // only now the run is known to be whole
  EXPECT_EQ(stream.Push(byte('\n')), "");
  EXPECT_EQ(stream.Flush(), "\n");
}

TEST(Tokenizer, IllFormedTextCountsAsReplacementCharacters) {
  const Tokenizer tokenizer = From(SmallTokenizerJson());
  EXPECT_EQ(tokenizer.Encode("a\xFF"), tokenizer.Encode("a\uFFFD"));
  EXPECT_EQ(tokenizer.Decode(std::vector<int32_t>{'a', 0xE6, 0x97, 'b'}), "a\uFFFDb");
}

TEST(Tokenizer, KnowsItsTokens) {
  const Tokenizer tokenizer = From(SmallTokenizerJson({"c a", "a b"}));
  EXPECT_EQ(tokenizer.NumIds(), 258);
  EXPECT_EQ(tokenizer.TokenText(257), "ab");
  EXPECT_EQ(tokenizer.TokenId("ab"), 257);
  EXPECT_EQ(tokenizer.TokenId("zz"), std::nullopt);
  EXPECT_TRUE(tokenizer.HasToken(0));
  EXPECT_FALSE(tokenizer.HasToken(258));
  EXPECT_FALSE(tokenizer.HasToken(-1));
}

TEST(Tokenizer, AnIdWithoutATokenDecodesToNothing) {
  Json json = SmallTokenizerJson();
  json["model"]["vocab"]["ab"] = 300;
  const Tokenizer tokenizer = From(json);
  for (const int32_t id : {-1, 256, 301, 2147483647}) {
    EXPECT_EQ(tokenizer.Decode(std::vector<int32_t>{'a', id, 300}), "aab");
    EXPECT_EQ(StreamingDetokenizer(tokenizer).Push(id), "");
    EXPECT_EQ(tokenizer.TokenBytes(id), "");
    EXPECT_EQ(tokenizer.TokenText(id), "");
    EXPECT_FALSE(tokenizer.IsSpecial(id));
  }
}

TEST(Tokenizer, DecodingSkipsSpecialTokensWhereAsked) {
  Json json = SmallTokenizerJson();
  json["added_tokens"] = {Added(256, "<s>"), Added(257, "<think>", {{"special", false}})};
  const Tokenizer tokenizer = From(json);
  const std::vector<int32_t> ids = {256, 'a', 0xC3, 256, 0xA9, 257};
  EXPECT_EQ(tokenizer.Decode(ids, true), "a\u00E9<think>");
  EXPECT_EQ(tokenizer.Decode(ids), "<s>a\uFFFD<s>\uFFFD<think>");
}

TEST(Tokenizer, WithoutByteLevelDecoderTokensAreJoinedAsTheyAre) {
  Json json = SmallTokenizerJson();
  json["decoder"] = nullptr;
  EXPECT_EQ(From(json).Decode(std::vector<int32_t>{'a', ' ', 'b'}), "a \u0120 b");
  json["decoder"] = {{"type", "Sequence"}, {"decoders", Json::array()}};
  EXPECT_EQ(From(json).Decode(std::vector<int32_t>{'a', ' ', 'b'}), "a\u0120b");
  json["decoder"]["decoders"].push_back({{"type", "ByteLevel"}});
  EXPECT_EQ(From(json).Decode(std::vector<int32_t>{'a', ' ', 'b'}), "a b");
}

TEST(Tokenizer, TellsWhatThePostProcessorWouldAdd) {
  Json json = SmallTokenizerJson();
  json["added_tokens"] = {Added(256, "<s>"), Added(257, "</s>")};
  json["post_processor"] = Json::parse(R"({"type": "Sequence", "processors": [
      {"type": "ByteLevel", "trim_offsets": false},
      {"type": "TemplateProcessing", "pair": [], "single": [
          {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
          {"SpecialToken": {"id": "</s>", "type_id": 0}}],
       "special_tokens": {"<s>": {"id": "<s>", "ids": [256], "tokens": ["<s>"]},
                          "</s>": {"id": "</s>", "ids": [257], "tokens": ["</s>"]}}}]})");
  const Tokenizer tokenizer = From(json);
  EXPECT_THAT(tokenizer.PrefixIds(), ElementsAre(256));
  EXPECT_THAT(tokenizer.SuffixIds(), ElementsAre(257));
  EXPECT_THAT(tokenizer.Encode("a"), ElementsAre('a'));
}

TEST(TokenizerJson, SettingsThatChangeNothingAreNoReasonToRefuse) {
  Json json = SmallTokenizerJson({"a b"});
  json["truncation"] = {{"direction", "Right"}, {"max_length", 1}, {"stride", 0}};
  json["padding"] = {{"strategy", {{"Fixed", 8}}}, {"pad_id", 0}, {"pad_token", "!"}};
  // With a token for each byte nothing is unknown.
  json["model"].update({{"byte_fallback", true}, {"fuse_unk", true}, {"unk_token", "<unk>"}});
  EXPECT_THAT(From(json).Encode("aab"), ElementsAre('a', 256));
}

struct Refusal {
  std::string patch;  // of the small tokenizer
  std::string message;
};

// `model` is patched, other fields are replaced.
Json Patched(const std::string& patch) {
  Json json = SmallTokenizerJson();
  const Json fields = Json::parse(patch);
  for (const auto& [name, value] : fields.items()) {
    if (name == "model")
      json[name].merge_patch(value);
    else
      json[name] = value;
  }
  return json;
}

TEST(TokenizerJson, RefusesByNameWhatItDoesNotImplement) {
  const std::vector<Refusal> refusals = {
      {R"({"version": "2.0"})", "t.json: version is \"2.0\"; supported is 1.0"},
      {R"({"extra": 1})", "t.json: extra is not supported; the fields allowed here are version"},
      {R"({"normalizer": {"type": "NFKC"}})", "t.json: normalizer.type is \"NFKC\"; supported is"},
      {R"({"normalizer": {"type": "Sequence", "normalizers": [{"type": "Lowercase"}]}})",
       "t.json: normalizer.normalizers[0].type is \"Lowercase\""},
      {R"({"normalizer": {"type": "Sequence", "normalizers": [
           {"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaaaaaaaaaaa"},
           {"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaaaaaaaaaaa"}]}})",
       "normalizers[1].content is \"aaaaaaaaaaaaaaaaa\"; supported is what makes a text at most "
       "256"},
      {R"({"decoder": {"type": "Sequence", "decoders": [
           {"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaaaaaaaaaaa"},
           {"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaaaaaaaaaaa"}]}})",
       "decoders[1].content is \"aaaaaaaaaaaaaaaaa\"; supported is what makes a text at most 256"},
      {R"({"pre_tokenizer": {"type": "Metaspace", "replacement": "ab"}})",

       "t.json: pre_tokenizer.replacement is \"ab\"; it must be one character"},
      {R"({"pre_tokenizer": {"type": "Metaspace", "replacement": "_", "prepend_scheme": "last"}})",
       "t.json: pre_tokenizer.prepend_scheme is \"last\"; it must be always, first or never"},
      {R"({"pre_tokenizer": {"type": "Sequence",
           "pretokenizers": [{"type": "ByteLevel"}, {"type": "Digits"}]}})",
       "t.json: pre_tokenizer.pretokenizers[1].type is \"Digits\"; supported is nothing after"},
      {R"({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Punctuation"}]}})",
       "pretokenizers[0].type is \"Punctuation\"; supported is Split, Digits, ByteLevel"},
      {R"({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
           {"type": "Split", "pattern": {"Regex": "a"}, "behavior": "Sideways"}]}})",
       "pretokenizers[0].behavior is \"Sideways\"; it must be Isolated"},
      {R"({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
           {"type": "Split", "pattern": {"Regex": "\\h"}, "behavior": "Isolated"}]}})",
       "pretokenizers[0].pattern.Regex: the regular expression has the escape \\h at byte 0"},
      {R"({"decoder": {"type": "WordPiece"}})", "t.json: decoder.type is \"WordPiece\""},
      {R"({"decoder": {"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "ByteLevel"}]}})",
       "t.json: decoder.decoders[1].type is \"ByteLevel\"; supported is the order Replace, "},
      {R"({"decoder": {"type": "Strip", "content": " ", "start": 1, "stop": 0}})",
       "t.json: decoder.type is \"Strip\"; supported is Strip after Fuse only"},
      {R"({"post_processor": {"type": "BertProcessing"}})",
       "t.json: post_processor.type is \"BertProcessing\""},
      {R"({"post_processor": {"type": "TemplateProcessing", "single": []}})",
       "t.json: post_processor.single is []; it must be a list with one Sequence"},
      {R"({"model": {"type": "Unigram"}})", "t.json: model.type is \"Unigram\"; supported is BPE"},
      {R"({"model": {"dropout": 0.5}})", "t.json: model.dropout is 0.5; supported is null or 0"},
      {R"({"pre_tokenizer": null, "model": {"unk_token": "<unk>"}})",
       "t.json: model.unk_token is \"<unk>\"; it must be a token of model.vocab"},
      {R"({"model": {"end_of_word_suffix": "</w>"}})", "t.json: model.end_of_word_suffix is"},
      {R"({"model": {"continuing_subword_prefix": "##"}})", "model.continuing_subword_prefix is"},
      {R"({"model": {"weights": 1}})", "t.json: model.weights is not supported"},
      {R"({"model": {"vocab": {"a": null}}})",
       "t.json: model.vocab has no token \"a\" for byte 0x61"},
  };
  for (const Refusal& refusal : refusals) {
    EXPECT_THAT(RefusalOf(Patched(refusal.patch)), HasSubstr(refusal.message)) << refusal.patch;
  }
  EXPECT_EQ(RefusalOf(SmallTokenizerJson()), "accepted");
}

TEST(TokenizerJson, RefusesContradictions) {
  const std::vector<Refusal> refusals = {
      {R"({"model": {"vocab": {"ab": 97}}})", "ids must differ"},
      {R"({"model": {"vocab": {"ab": -1}}})",
       "t.json: model.vocab.ab is -1; it must be an integer in [0, "},
      {R"({"model": {"vocab": {"ab": 2000000000}}})", "t.json: model.vocab.ab is 2000000000"},
      {R"({"model": {"merges": ["a b"]}})", "t.json: model.merges[0] needs the token \"ab\""},
      {R"({"model": {"merges": ["a  b"]}})", "t.json: model.merges[0] is \"a  b\"; it must be"},
      {R"({"model": {"merges": [["a", 1]]}})", "t.json: model.merges[0] is [\"a\",1]"},
      {R"({"model": {"merges": {}}})", "t.json: model.merges is {}; it must be an array"},
      {R"({"added_tokens": [{"id": 97, "content": "zz"}]})",
       "t.json: added_tokens[0].id is 97; it must be an id that no other token has"},
      {R"({"added_tokens": [{"id": 300, "content": "a"}]})",
       "t.json: added_tokens[0].id is 300; it must be 97"},
      {R"({"added_tokens": [{"id": 300, "content": ""}]})",
       "t.json: added_tokens[0].content is \"\""},
      {R"({"added_tokens": [{"id": 300, "content": "x1"}, {"id": 300, "content": "x1"}]})",
       "t.json: added_tokens[1].content is \"x1\"; it must be a content that no other"},
      {R"({"added_tokens": 5})", "t.json: added_tokens is 5; it must be an array"},
  };
  for (const Refusal& refusal : refusals) {
    EXPECT_THAT(RefusalOf(Patched(refusal.patch)), HasSubstr(refusal.message)) << refusal.patch;
  }
  EXPECT_THROW(Tokenizer::FromText("{", "t.json"), Error);
  EXPECT_THROW(Tokenizer::FromText("[]", "t.json"), Error);
  EXPECT_THROW(Tokenizer::FromFile("/no/such/folder"), Error);
}

Tokenizer EmbeddedTokenizer() {
  const char* folder = std::getenv("WIDELOAD_SOURCE_DIR");
  return Tokenizer::FromFile(std::string(folder ? folder : ".") + "/models/wideload-14m");
}

std::string RandomText(std::mt19937& random) {
  // Dense in what is cut, merged, composed or special.
  static constexpr std::pair<uint32_t, uint32_t> kRanges[] = {
      {0x00, 0x7F},     {0x20, 0x20},     {'a', 'z'},         {0x300, 0x345},
      {0xC0, 0x24F},    {0x1100, 0x11FF}, {0x3040, 0x30FF},   {0x4E00, 0x9FFF},
      {0xAC00, 0xD7A3}, {0x2000, 0x206F}, {0x1F300, 0x1F6FF}, {0xE000, 0x10FFFF}};
  std::string text;
  for (int i = 0, count = static_cast<int>(random() % 60); i < count; ++i) {
    const auto [first, last] = kRanges[random() % std::size(kRanges)];
    AppendUtf8(first + static_cast<uint32_t>(random()) % (last - first + 1), text);
  }
  return text;
}

TEST(Tokenizer, DecodingGivesTheNormalisedTextBack) {
  const Tokenizer tokenizer = EmbeddedTokenizer();
  std::mt19937 random(20261);
  for (int i = 0; i < 5000; ++i) {
    const std::string text = RandomText(random);
    EXPECT_EQ(tokenizer.Decode(tokenizer.Encode(text)), Nfc(text));
  }
}

TEST(Tokenizer, ManyThreadsGetTheSameIds) {
  const Tokenizer tokenizer = EmbeddedTokenizer();
  std::mt19937 random(7);
  std::vector<std::string> texts;
  std::vector<std::vector<int32_t>> expected;
  for (int i = 0; i < 200; ++i) {
    texts.push_back(RandomText(random));
    expected.push_back(tokenizer.Encode(texts.back()));
  }
  std::vector<std::vector<std::vector<int32_t>>> found(4);
  {
    std::vector<std::jthread> threads;
    for (auto& mine : found)
      threads.emplace_back([&] {
        for (const std::string& text : texts) mine.push_back(tokenizer.Encode(text));
      });
  }
  for (const auto& mine : found) EXPECT_EQ(mine, expected);
}

TEST(StreamingDetokenizer, EmitsOnlyWholeCharacters) {
  const Tokenizer tokenizer = From(SmallTokenizerJson());
  StreamingDetokenizer stream(tokenizer);
  EXPECT_EQ(stream.Push('a'), "a");
  EXPECT_EQ(stream.Push(0xF0), "");
  EXPECT_EQ(stream.Push(0x9F), "");
  EXPECT_EQ(stream.Push(0x98), "");
  EXPECT_EQ(stream.Push(0x80), "\U0001F600");
  EXPECT_EQ(stream.Push(0xE6), "");
  EXPECT_EQ(stream.Push('b'), "\uFFFDb");
  EXPECT_EQ(stream.Push(0xFF), "\uFFFD");
  EXPECT_EQ(stream.Push(0xE6), "");
  EXPECT_EQ(stream.Flush(), "\uFFFD");
  EXPECT_EQ(stream.Flush(), "");
}

TEST(StreamingDetokenizer, EqualsDecodeForAnyRowOfIds) {
  const Tokenizer tokenizer = EmbeddedTokenizer();
  std::mt19937 random(99);
  for (int i = 0; i < 500; ++i) {
    std::vector<int32_t> ids(random() % 40);
    // The first ids are single bytes: many broken characters.
    for (int32_t& id : ids) id = static_cast<int32_t>(random() % (i % 2 ? 300 : 8192));
    StreamingDetokenizer stream(tokenizer);
    std::string text;
    for (const int32_t id : ids) {
      const std::string piece = stream.Push(id);
      EXPECT_TRUE(IsValidUtf8(piece));
      text += piece;
    }
    EXPECT_EQ(text + stream.Flush(), tokenizer.Decode(ids));
  }
}

}  // namespace
}  // namespace wideload::tokenizer
