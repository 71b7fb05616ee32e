#include "serve/tool_calls.h"

#include <gtest/gtest.h>

#include "jinja/json_value.h"

namespace wideload::serve {
namespace {

const jinja::Value kTools = jinja::ParseJsonValue(
    R"([{"type": "function", "function": {"name": "f", "parameters": {"properties": {
         "code": {"type": "string"}, "count": {"type": "integer"}}}}}, {"type": "odd"}, 3])",
    "tools");

// "content|name(arguments)#id..." of a text that comes in pieces of `size` bytes.
std::string Read(ToolForm form, std::string_view text, size_t size) {
  ToolCallReader reader(form, TextParametersOf(kTools));
  std::string content, calls;
  const auto take = [&](const ToolCallReader::Found& found) {
    content += found.content;
    for (const ToolCall& call : found.calls)
      calls +=
          "|" + call.name + "(" + call.arguments + ")" + (call.id.empty() ? "" : "#" + call.id);
  };
  for (size_t i = 0; i < text.size(); i += size) take(reader.Feed(text.substr(i, size)));
  take(reader.Flush());
  return content + calls;
}

void ExpectRead(ToolForm form, std::string_view text, std::string_view expected) {
  for (size_t size = 1; size <= text.size(); ++size)
    ASSERT_EQ(Read(form, text, size), expected) << "in pieces of " << size;
}

TEST(ToolCallReader, FindsTaggedCalls) {
  ExpectRead(
      ToolForm::kTagged,
      "Let me see.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"b\": 1, \"a\": \"}\\\"\"}}\n"
      "</tool_call>\n<tool_call>{\"name\": \"g\"}</tool_call>\n",
      "Let me see.\n|f({\"b\": 1, \"a\": \"}\\\"\"})|g({})");
}

TEST(ToolCallReader, FindsCallsOfFunctionTags) {
  ExpectRead(
      ToolForm::kTagged,
      "<tool_call>\n<function=f>\n<parameter=code>\n12\n</parameter>\n<parameter=count>\n12\n"
      "</parameter>\n<parameter=more>\na\nb\n</parameter>\n</function>\n</tool_call>",
      R"(|f({"code": "12", "count": 12, "more": "a\nb"}))");
}

TEST(ToolCallReader, FindsGlmCalls) {
  ExpectRead(ToolForm::kGlm,
             "\n<tool_call>f\n<arg_key>code</arg_key>\n<arg_value>[1]</arg_value>\n"
             "<arg_key>count</arg_key>\n<arg_value>3</arg_value>\n<arg_key>x</arg_key>\n"
             "<arg_value>two words</arg_value>\n</tool_call>\n<tool_call>g</tool_call>",
             "\n|f({\"code\": \"[1]\", \"count\": 3, \"x\": \"two words\"})|g({})");
}

TEST(ToolCallReader, FindsDeepSeekCallsOfBothKinds) {
  ExpectRead(
      ToolForm::kDeepSeek,
      "Wait.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": 1}<｜tool▁call▁end｜>"
      "<｜tool▁call▁begin｜>g<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
      "Wait.|f({\"a\": 1})|g({})");
  ExpectRead(
      ToolForm::kDeepSeek,
      "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"a\": 1}\n```"
      "<｜tool▁call▁end｜>\n<｜tool▁calls▁end｜>",
      "|f({\"a\": 1})");
}

TEST(ToolCallReader, FindsKimiCallsWithTheirIds) {
  ExpectRead(
      ToolForm::kKimi,
      "So.<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0"
      "<|tool_call_argument_begin|>{\"a\": 1}<|tool_call_end|><|tool_call_begin|>functions.g:1"
      "<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>",
      "So.|f({\"a\": 1})#functions.f:0|g({})#functions.g:1");
}

TEST(ToolCallReader, FindsLlamaCallsWhereTheyAreAllThereIs) {
  ExpectRead(ToolForm::kLlama, R"({"name": "f", "parameters": {"a": "}"}})", R"(|f({"a": "}"}))");
  ExpectRead(ToolForm::kLlama,
             R"( {"type": "function", "name": "f", "parameters": {}}; {"name": "g"} )",
             "|f({})|g({})");
  for (const std::string_view text :
       {R"(It is {"name": "f", "parameters": {}})", R"({"name": "f", "parameters": {}} is it)",
        R"({"name": "f", "param)", "{", R"({"a": 1})", "  "})
    ExpectRead(ToolForm::kLlama, text, text);
}

TEST(ToolCallReader, ArgumentsAreThoseOfTheCallItself) {
  EXPECT_EQ(Read(ToolForm::kTagged,
                 R"(<tool_call>{"name": "f", "arguments": "{\"x\": 2}"}</tool_call>)", 5),
            "|f({\"x\": 2})");
  EXPECT_EQ(
      Read(
          ToolForm::kTagged,
          R"(<tool_call>{"x": {"arguments": {"y": 1}}, "name": "arguments", "arguments" : {"z": [{}]}}</tool_call>)",
          5),
      "|arguments({\"z\": [{}]})");
}

TEST(ToolCallReader, WhatIsNoCallStaysText) {
  for (const std::string_view text :
       {"<tool_call>{\"name\": 1}</tool_call>", "<tool_call>f(x)</tool_call> more", "a <tool_cal",
        "<tool_call>{\"name\": \"f\", \"arguments\": 1}</tool_call>", "</tool_call>",
        "<tool_call><function=f><parameter=a>1</function></tool_call>",
        "<tool_call><function=></function></tool_call>"})
    EXPECT_EQ(Read(ToolForm::kTagged, text, 3), text);
  for (const std::string_view text :
       {"<tool_call></tool_call>", "<tool_call>f<arg_key>a</arg_key></tool_call>",
        "<tool_call>{\"name\": \"f\"}</tool_call>"})
    EXPECT_EQ(Read(ToolForm::kGlm, text, 3), text);
  for (const std::string_view text :
       {"<｜tool▁call▁begin｜>f{}<｜tool▁call▁end｜>",
        "<｜tool▁call▁begin｜>f<｜tool▁sep｜>[]<｜tool▁call▁end｜>", "<｜tool▁sep｜>"})
    EXPECT_EQ(Read(ToolForm::kDeepSeek, text, 3), text);
  EXPECT_EQ(Read(ToolForm::kKimi, "<|tool_call_begin|>f:0 {}<|tool_call_end|>", 3),
            "<|tool_call_begin|>f:0 {}<|tool_call_end|>");
}

TEST(ToolCallReader, AWholeCallCountsWithoutItsEnd) {
  EXPECT_EQ(Read(ToolForm::kTagged, R"(<tool_call>{"name": "f", "arguments": {}})", 4), "|f({})");
  EXPECT_EQ(Read(ToolForm::kTagged, R"(<tool_call>{"name": "f", "argum)", 4),
            R"(<tool_call>{"name": "f", "argum)");
}

TEST(ToolForm, IsTheOneThatATemplateShows) {
  EXPECT_EQ(ToolFormOf("{{ messages }}"), ToolForm::kNone);
  EXPECT_EQ(ToolFormOf("<tool_call>{function-name}\n<arg_key>"), ToolForm::kGlm);
  EXPECT_EQ(ToolFormOf("'<tool_call>\\n'"), ToolForm::kTagged);
  EXPECT_EQ(ToolFormOf("'<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>'"), ToolForm::kDeepSeek);
  EXPECT_EQ(ToolFormOf("<|tool_call_begin|>{{ id }}"), ToolForm::kKimi);
  EXPECT_EQ(ToolFormOf(R"({"name": function name, "parameters": dictionary of argument name and)"),
            ToolForm::kLlama);
}

}  // namespace
}  // namespace wideload::serve
