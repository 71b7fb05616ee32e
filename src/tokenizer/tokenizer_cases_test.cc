// Ids and decoded texts of the Hugging Face tokenizers library and of tiktoken.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "base/file.h"
#include "base/json.h"
#include "tokenizer/detokenizer.h"
#include "tokenizer/tokenizer.h"

namespace wideload::tokenizer {
namespace {

using Ids = std::vector<int32_t>;

std::string SourceFolder() {
  const char* folder = std::getenv("WIDELOAD_SOURCE_DIR");
  return folder ? folder : ".";
}

std::string SharedFolder() {
  const char* folder = std::getenv("WIDELOAD_SHARED");
  return folder ? folder : SourceFolder() + "/../shared";
}

// `path` holds no quotes: it is made of the two folders above and constants.
std::string Gunzip(const std::string& path) {
  const std::string command = "gzip -dc '" + path + "'";
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command.c_str(), "r"), pclose);
  std::string text;
  char buffer[65536];
  while (const size_t count = fread(buffer, 1, sizeof buffer, pipe.get()))
    text.append(buffer, count);
  return text;
}

std::string Streamed(const Tokenizer& tokenizer, const Ids& ids, bool skip_special) {
  StreamingDetokenizer stream(tokenizer, skip_special);
  std::string text;
  for (const int32_t id : ids) text += stream.Push(id);
  return text + stream.Flush();
}

void ExpectCases(const Tokenizer& tokenizer, const Json& cases) {
  ASSERT_GT(cases.size(), 200u);
  for (const Json& one : cases) {
    const auto text = one["text"].get<std::string>();
    const Ids ids = one["ids"].get<Ids>();
    EXPECT_EQ(tokenizer.Encode(text), ids) << one.value("about", "") << ": " << text;
    EXPECT_EQ(tokenizer.EncodeWithSpecial(text), one.value("ids_with_special", ids)) << text;
    EXPECT_EQ(tokenizer.Decode(ids), one["decoded"].get<std::string>());
    EXPECT_EQ(Streamed(tokenizer, ids, false), one["decoded"].get<std::string>());
  }
}

// Ids cut anywhere.
void ExpectDecodedCases(const Tokenizer& tokenizer, const Json& cases) {
  ASSERT_GT(cases.size(), 40u);
  for (const Json& one : cases) {
    const Ids ids = one["ids"].get<Ids>();
    for (const bool skip_special : {false, true}) {
      const auto expected =
          one[skip_special ? "decoded_without_special" : "decoded"].get<std::string>();
      EXPECT_EQ(tokenizer.Decode(ids, skip_special), expected) << one["ids"];
      EXPECT_EQ(Streamed(tokenizer, ids, skip_special), expected) << one["ids"];
    }
  }
}

TEST(TokenizerCases, EmbeddedModelGivesTheIdsOfTheReference) {
  ExpectCases(Tokenizer::FromFile(SourceFolder() + "/models/wideload-14m"),
              ReadJsonFile(SourceFolder() + "/testdata/tokenizers/wideload/cases.json"));
}

class PublishedTokenizer : public testing::TestWithParam<std::string> {};

TEST_P(PublishedTokenizer, GivesTheIdsOfTheReference) {
  const std::string folder = SharedFolder() + "/models/tokenizers/" + GetParam();
  if (!FileExists(folder + "/tokenizer.json.gz")) GTEST_SKIP() << folder << " is not here";
  const Tokenizer tokenizer =
      Tokenizer::FromText(Gunzip(folder + "/tokenizer.json.gz"), GetParam());
  const Json cases = ReadJsonFile(folder + "/cases.json");
  ExpectCases(tokenizer, cases);
}

INSTANTIATE_TEST_SUITE_P(Families, PublishedTokenizer, testing::Values("deepseek", "llama3"));

// Vocabularies of the project in the layouts of published families.
class TokenizerOfFamily : public testing::TestWithParam<std::string> {};

TEST_P(TokenizerOfFamily, GivesTheIdsAndTextsOfTheReference) {
  const std::string folder = SourceFolder() + "/testdata/tokenizers/" + GetParam();
  const Tokenizer tokenizer = Tokenizer::FromFile(folder);
  ExpectCases(tokenizer, ReadJsonFile(folder + "/cases.json"));
  ExpectDecodedCases(tokenizer, ReadJsonFile(folder + "/decode.json"));
}

TEST_P(TokenizerOfFamily, GivesTheIdsOfTheReferenceForLongTexts) {
  const std::string folder = SharedFolder() + "/models/tokenizers/" + GetParam();
  if (!FileExists(folder + "/cases.json")) GTEST_SKIP() << folder << " is not here";
  ExpectCases(Tokenizer::FromFile(folder), ReadJsonFile(folder + "/cases.json"));
}

INSTANTIATE_TEST_SUITE_P(Families, TokenizerOfFamily,
                         testing::Values("glm4", "gpt-neox", "gpt-oss", "kimi-k2", "llama4",
                                         "mixtral", "mixtral-metaspace", "qwen3"),
                         [](const auto& family) {
                           std::string name = family.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace wideload::tokenizer
