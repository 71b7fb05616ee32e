// Ids and decoded texts of the Hugging Face tokenizers library.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <memory>

#include "base/file.h"
#include "base/json.h"
#include "tokenizer/detokenizer.h"
#include "tokenizer/tokenizer.h"

namespace wideload::tokenizer {
namespace {

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

void ExpectCases(const Tokenizer& tokenizer, const Json& cases) {
  ASSERT_GT(cases.size(), 300u);
  for (const Json& one : cases) {
    const auto text = one["text"].get<std::string>();
    const auto ids = one["ids"].get<std::vector<int32_t>>();
    EXPECT_EQ(tokenizer.Encode(text), ids) << text;
    EXPECT_EQ(tokenizer.Decode(ids), one["decoded"].get<std::string>());
    StreamingDetokenizer stream(tokenizer);
    std::string streamed;
    for (const int32_t id : ids) streamed += stream.Push(id);
    EXPECT_EQ(streamed + stream.Flush(), one["decoded"].get<std::string>());
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
  ExpectCases(tokenizer, ReadJsonFile(folder + "/cases.json"));
}

INSTANTIATE_TEST_SUITE_P(Families, PublishedTokenizer, testing::Values("deepseek", "llama3"));

}  // namespace
}  // namespace wideload::tokenizer
