// The input of /v1/responses as a chat, and a message as its items and events.
#include <gtest/gtest.h>

#include "serve/api_request.h"
#include "serve/responses_writer.h"

namespace wideload::serve {
namespace {

// What is said against the body; "" when it is read.
std::string Wrong(std::string_view body, ApiRequest* request = nullptr) {
  ApiRequest scratch;
  const auto refusal = ParseApiRequest(kResponses, body, request ? *request : scratch);
  return refusal ? refusal->param + ": " + refusal->message : "";
}

std::string TextAt(const jinja::Value& message, std::string_view key) {
  const jinja::Value* value = message.Map()->Find(key);
  const jinja::MarkedText* text = value ? value->Str() : nullptr;
  return text ? std::string(text->text()) : "";
}

TEST(ResponsesInput, ATextIsTheUsersMessage) {
  ApiRequest request;
  EXPECT_EQ(Wrong(R"({"input": "Hi", "instructions": "Be brief.", "max_output_tokens": 5,
                      "metadata": {"a": "b"}, "temperature": 0, "model": "m",
                      "reasoning": {"effort": "high", "summary": null}})",
                  &request),
            "");
  ASSERT_EQ(request.messages.size(), 2U);
  EXPECT_EQ(TextAt(request.messages[0], "role"), "system");
  EXPECT_EQ(TextAt(request.messages[0], "content"), "Be brief.");
  EXPECT_EQ(TextAt(request.messages[1], "content"), "Hi");
  EXPECT_EQ(request.sampling.max_tokens, 5);
  EXPECT_EQ(request.said["metadata"]["a"], "b");
  EXPECT_EQ(request.reasoning_effort, "high");
  EXPECT_EQ(request.effort_field, "reasoning");
  EXPECT_FALSE(request.said.contains("input"));
}

TEST(ResponsesInput, ItemsBecomeMessages) {
  ApiRequest request;
  EXPECT_EQ(Wrong(R"({"input": [
      {"role": "developer", "content": "D"},
      {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"},
                                                       {"type": "input_text", "text": "b"}]},
      {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm"}]},
      {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{\"x\": 1}"},
      {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{}"},
      {"type": "function_call_output", "call_id": "c1", "output": "one"},
      {"role": "assistant", "content": [{"type": "output_text", "text": "Done."}]}],
      "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}]})",
                  &request),
            "");
  std::string roles;
  for (const jinja::Value& message : request.messages) roles += TextAt(message, "role") + " ";
  EXPECT_EQ(roles, "system user assistant tool assistant ");
  EXPECT_EQ(TextAt(request.messages[1], "content"), "a\nb");
  EXPECT_EQ(TextAt(request.messages[2], "reasoning_content"), "Hm");
  EXPECT_EQ(request.messages[2].Map()->Find("tool_calls")->Seq()->items.size(), 2U);
  EXPECT_EQ(TextAt(request.messages[3], "tool_call_id"), "c1");
  EXPECT_EQ(TextAt(request.messages[4], "content"), "Done.");
  const jinja::Value& tool = request.tools.Seq()->items[0];
  EXPECT_EQ(TextAt(tool, "type"), "function");
  EXPECT_EQ(TextAt(*tool.Map()->Find("function"), "name"), "f");
}

TEST(ResponsesInput, IsRefusedByName) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({})", "input: the field input is missing"},
      {R"({"input": []})", "input: the field input is missing"},
      {R"({"input": 3})", "input: input is neither"},
      {R"({"input": [3]})", "input[0]: input[0] is no object"},
      {R"({"input": [{"role": "user"}]})", "input[0]: input[0] has no content"},
      {R"({"input": [{"type": "computer_call"}]})",
       "input[0]: input[0] is of type \"computer_call\""},
      {R"({"input": [{"role": "user", "content": [{"type": "input_image"}]}]})",
       "input[0]: input[0] has a content part of type \"input_image\""},
      {R"({"input": [{"type": "function_call", "name": "f"}]})", "input[0]: input[0] is a call"},
      {R"({"input": [{"type": "function_call_output"}]})", "input[0]: input[0] has no output"},
      {R"({"input": "a", "tools": [{"type": "web_search"}]})", "tools: tools has a tool of type"},
      {R"({"input": "a", "previous_response_id": "x"})", "previous_response_id: "},
      {R"({"input": "a", "store": true})", "store: "},
      {R"({"input": "a", "reasoning": {"effort": "big"}})", "reasoning: reasoning has an effort"},
      {R"({"input": "a", "reasoning": {"summary": "auto"}})",
       "reasoning: reasoning has the member"},
      {R"({"input": "a", "text": {"format": {"type": "ebnf"}}})", "text: text has a type"},
      {R"({"input": "a", "messages": []})", "messages: messages is a field that is not known"},
  };
  for (const auto& [body, expected] : cases)
    EXPECT_EQ(Wrong(body).substr(0, std::string(expected).size()), expected) << body;
}

// The types of the events, and whether their numbers rise.
std::string Types(const ResponsesWriter::Events& events, int64_t& next) {
  std::string types;
  for (const Json& event : events) {
    EXPECT_EQ(event["sequence_number"], next++);
    types += event["type"].get<std::string>().substr(std::string("response.").size()) + " ";
  }
  return types;
}

TEST(ResponsesWriter, TellsItemsAsTheyComeAndInTheEnd) {
  ResponsesWriter writer({.id = "resp_1",
                          .created = 7,
                          .model = "m",
                          .said = {{"temperature", 0.5}, {"seed", 3}, {"model", "other"}}});
  int64_t next = 0;
  EXPECT_EQ(Types(writer.Begin(), next), "created in_progress ");
  EXPECT_EQ(Types(writer.Take({.thoughts = "Hm", .content = "", .calls = {}}), next),
            "output_item.added content_part.added reasoning_text.delta ");
  EXPECT_EQ(Types(writer.Take({.thoughts = "", .content = "Yes", .calls = {}}), next),
            "reasoning_text.done content_part.done output_item.done "
            "output_item.added content_part.added output_text.delta ");
  EXPECT_EQ(Types(writer.Take({.thoughts = "",
                               .content = ".",
                               .calls = {{.name = "f", .arguments = "{}", .id = "c"}}}),
                  next),
            "output_text.delta output_text.done content_part.done output_item.done "
            "output_item.added function_call_arguments.delta function_call_arguments.done "
            "output_item.done ");
  const ResponsesWriter::Events last = writer.End("tool_calls", {{"total_tokens", 3}});
  EXPECT_EQ(Types(last, next), "completed ");
  const Json object = writer.Object();
  EXPECT_EQ(last.back()["response"], object);
  EXPECT_EQ(object["status"], "completed");
  EXPECT_EQ(object["model"], "m");
  EXPECT_EQ(object["temperature"], 0.5);
  EXPECT_FALSE(object.contains("seed"));
  EXPECT_EQ(object["usage"]["total_tokens"], 3);
  ASSERT_EQ(object["output"].size(), 3U);
  EXPECT_EQ(object["output"][0]["content"][0]["text"], "Hm");
  EXPECT_EQ(object["output"][1]["content"][0]["text"], "Yes.");
  EXPECT_EQ(object["output"][2]["call_id"], "c");
}

TEST(ResponsesWriter, WhatEndedBeforeItsTimeIsIncomplete) {
  ResponsesWriter writer({.id = "resp_1", .created = 7, .model = "m"});
  int64_t next = 0;
  EXPECT_EQ(Types(writer.End("length", nullptr), next),
            "output_item.added content_part.added output_text.done content_part.done "
            "output_item.done incomplete ");
  const Json object = writer.Object();
  EXPECT_EQ(object["status"], "incomplete");
  EXPECT_EQ(object["incomplete_details"]["reason"], "max_output_tokens");
  EXPECT_EQ(object["output"][0]["status"], "incomplete");
}

TEST(ResponsesWriter, OfItemsOnlyTheOneThatWasCutIsIncomplete) {
  ResponsesWriter writer({.id = "resp_1", .created = 7, .model = "m"});
  writer.Take({.thoughts = "Hm", .content = "Ye", .calls = {}});
  const ResponsesWriter::Events last = writer.End("length", nullptr);
  const Json object = writer.Object();
  EXPECT_EQ(object["output"][0]["status"], "completed");
  EXPECT_EQ(object["output"][1]["status"], "incomplete");
  EXPECT_EQ(last[2]["item"], object["output"][1]);
}

}  // namespace
}  // namespace wideload::serve
