#include "loadclient/completion_chunk.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/error.h"

namespace wideload::loadclient {
namespace {

std::vector<std::string> Events(std::string_view text, size_t piece) {
  std::vector<std::string> events;
  EventReader reader;
  for (size_t at = 0; at < text.size(); at += piece)
    reader.Feed(text.substr(at, piece), [&](std::string_view data) { events.emplace_back(data); });
  return events;
}

TEST(EventReader, FindsTheSameEventsInWhateverPieces) {
  const std::string text =
      ": ping\n\ndata: {\"a\":1}\n\nevent: x\r\nid: 3\r\ndata:two\r\ndata: lines\r\n\r\n"
      "data: [DONE]\n\ndata: unfinished\n";
  for (size_t piece = 1; piece <= text.size(); ++piece)
    EXPECT_EQ(Events(text, piece), (std::vector<std::string>{"{\"a\":1}", "two\nlines", "[DONE]"}))
        << piece;
}

TEST(EventReader, RefusesAnEventWithoutEnd) {
  EventReader reader;
  const std::string line = "data: " + std::string(1 << 20, 'x') + "\n";
  const auto feed = [&] {
    for (int i = 0; i < 17; ++i) reader.Feed(line, [](std::string_view) {});
  };
  EXPECT_THROW(feed(), Error);
}

TEST(ParseChunk, ReadsTextOfCompletionsAndChatsAndUsage) {
  EXPECT_EQ(ParseChunk(R"({"choices":[{"index":0,"text":"ab"}]})").text, "ab");
  const Chunk chat = ParseChunk(R"({"choices":[{"delta":{"content":"c","role":"assistant"}}]})");
  EXPECT_EQ(chat.text, "c");
  EXPECT_EQ(chat.completion_tokens, -1);
  EXPECT_EQ(ParseChunk(R"({"choices":[{"delta":{"reasoning_content":"t"}}]})").text, "t");
  const Chunk usage =
      ParseChunk(R"({"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}})");
  EXPECT_FALSE(usage.has_choice);
  EXPECT_EQ(usage.prompt_tokens, 7);
  EXPECT_EQ(usage.completion_tokens, 3);
}

TEST(ParseChunk, NamesErrorsInAStream) {
  EXPECT_EQ(ParseChunk(R"({"error":{"message":"m","type":"t","code":"lost"}})").error, "lost");
  EXPECT_EQ(ParseChunk(R"({"error":{"message":"m","code":500}})").error, "m");
  EXPECT_THROW(ParseChunk("no json"), Error);
  EXPECT_THROW(ParseChunk("[1]"), Error);
}

TEST(ErrorName, HasTheStatusAndTheCodeOfTheEnvelope) {
  EXPECT_EQ(ErrorName(429, R"({"error":{"message":"m","code":"overloaded"}})"), "429 overloaded");
  EXPECT_EQ(ErrorName(502, "<html>"), "502");
  EXPECT_EQ(ErrorName(400, R"({"error":"bad"})"), "400 bad");
}

}  // namespace
}  // namespace wideload::loadclient
