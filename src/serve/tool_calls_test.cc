#include "serve/tool_calls.h"

#include <gtest/gtest.h>

namespace wideload::serve {
namespace {

// "content|name(arguments)..." of a text that comes in pieces of `size` bytes.
std::string Read(std::string_view text, size_t size) {
  ToolCallReader reader;
  std::string content, calls;
  const auto take = [&](const ToolCallReader::Found& found) {
    content += found.content;
    for (const ToolCall& call : found.calls) calls += "|" + call.name + "(" + call.arguments + ")";
  };
  for (size_t i = 0; i < text.size(); i += size) take(reader.Feed(text.substr(i, size)));
  take(reader.Flush());
  return content + calls;
}

TEST(ToolCallReader, FindsCallsInPiecesOfAnySize) {
  const std::string_view text =
      "Let me see.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"b\": 1, \"a\": \"}\\\"\"}}\n"
      "</tool_call>\n<tool_call>{\"name\": \"g\"}</tool_call>\n";
  for (size_t size = 1; size <= text.size(); ++size)
    EXPECT_EQ(Read(text, size), "Let me see.\n|f({\"b\": 1, \"a\": \"}\\\"\"})|g({})") << size;
}

TEST(ToolCallReader, ArgumentsThatAreATextAreTheirText) {
  EXPECT_EQ(Read(R"(<tool_call>{"name": "f", "arguments": "{\"x\": 2}"}</tool_call>)", 5),
            "|f({\"x\": 2})");
}

TEST(ToolCallReader, WhatIsNoCallStaysText) {
  for (const std::string_view text :
       {"<tool_call>{\"name\": 1}</tool_call>", "<tool_call>f(x)</tool_call> more", "a <tool_cal",
        "<tool_call>{\"name\": \"f\", \"arguments\": 1}</tool_call>", "</tool_call>"})
    EXPECT_EQ(Read(text, 3), text);
}

TEST(ToolCallReader, AWholeCallCountsWithoutItsEnd) {
  EXPECT_EQ(Read(R"(<tool_call>{"name": "f", "arguments": {}})", 4), "|f({})");
  EXPECT_EQ(Read(R"(<tool_call>{"name": "f", "argum)", 4), R"(<tool_call>{"name": "f", "argum)");
}

}  // namespace
}  // namespace wideload::serve
