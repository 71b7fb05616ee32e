#include "serve/message_reader.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <tuple>

#include "base/file.h"
#include "jinja/json_value.h"

namespace wideload::serve {
namespace {

const jinja::Value kNoTools{jinja::None{}};

// "[thoughts]content|name(arguments)..." of a text that comes in pieces of `size` bytes.
std::string Read(const MessageForm& form, std::string_view text, size_t size) {
  MessageReader reader(form);
  std::string thoughts, content, calls;
  const auto take = [&](const MessagePart& part) {
    thoughts += part.thoughts;
    content += part.content;
    for (const ToolCall& call : part.calls) calls += "|" + call.name + "(" + call.arguments + ")";
  };
  for (size_t i = 0; i < text.size(); i += size) take(reader.Feed(text.substr(i, size)));
  take(reader.Flush());
  return "[" + thoughts + "]" + content + calls;
}

void ExpectRead(const MessageForm& form, std::string_view text, std::string_view expected) {
  for (size_t size = 1; size <= text.size(); ++size)
    ASSERT_EQ(Read(form, text, size), expected) << "in pieces of " << size;
}

TEST(MessageReader, TakesThoughtsApart) {
  const MessageForm form{.has_thoughts = true};
  ExpectRead(form, "<think>\nHm,\nso.\n</think>\n\nYes <think>", "[Hm,\nso.]Yes <think>");
  ExpectRead(form, " \n<think></think>Yes", "[]Yes");
  ExpectRead(form, "<think>\nNo end </thi", "[No end </thi]");
  ExpectRead(form, "Yes </think>", "[]Yes </think>");
  ExpectRead(form, "<thin", "[]<thin");
  ExpectRead(form, "<think>\n", "[]");
}

TEST(MessageReader, ThoughtsThatThePromptHasOpened) {
  const MessageForm form{.has_thoughts = true, .begins_in_thoughts = true};
  ExpectRead(form, "\nHm.\n\n</think>\nYes", "[Hm.]Yes");
  ExpectRead(form, "Hm", "[Hm]");
}

TEST(MessageReader, CallsComeAfterThoughts) {
  const MessageForm form{.has_thoughts = true, .tools = ToolForm::kTagged};
  ExpectRead(form,
             "<think>\n<tool_call>?\n</think>\n\nWell.<tool_call>{\"name\": \"f\"}</tool_call>",
             "[<tool_call>?]Well.|f({})");
  ExpectRead(form, "<tool_call>{\"name\": \"f\"}", "[]|f({})");
}

TEST(MessageReader, TakesChannelsApart) {
  const MessageForm form{.has_channels = true};
  ExpectRead(form,
             "<|channel|>analysis<|message|>Hm < so.<|end|><|start|>assistant<|channel|>final"
             "<|message|>Yes<|return|>",
             "[Hm < so.]Yes");
  ExpectRead(form,
             "<|channel|>commentary<|message|>Let me see.<|end|><|start|>assistant<|channel|>"
             "commentary to=functions.f <|constrain|>json<|message|>{\"a\": 1}<|call|>",
             "[]Let me see.|f({\"a\": 1})");
  ExpectRead(form, " to=functions.g<|channel|>commentary json<|message|>{}", "[]|g({})");
  ExpectRead(form, "<|channel|>analysis to=functions.f<|message|>{\"a\": ", "[]{\"a\": ");
  ExpectRead(form, "<|channel|>analysis<|message|>Hm", "[Hm]");
  ExpectRead(form, "<|channel|>ana", "[]");
  ExpectRead(form, "Plain", "[]Plain");
}

TEST(MessageReader, GoesOnWithAMessageThatHasBegun) {
  MessageForm form{.has_thoughts = true};
  GoOn("One, ", form);
  ExpectRead(form, "<think>two", "[]<think>two");
  GoOn("<think>\nOne", form);
  ExpectRead(form, "\ntwo\n</think>\n\nThree", "[\ntwo]Three");
  GoOn("<think>\nOne</think>Two", form);
  ExpectRead(form, " three", "[] three");
  form = {.has_channels = true};
  GoOn("One", form);
  ExpectRead(form, " two<|return|>", "[] two");
  ExpectRead(form, "<b>two", "[]<b>two");
}

TEST(MessageReader, WithoutAFormAllIsText) {
  ExpectRead({}, "<think>a</think><tool_call>", "[]<think>a</think><tool_call>");
}

TEST(MessageForm, IsTheOneOfTemplateAndPrompt) {
  const jinja::Value tools = jinja::ParseJsonValue("[]", "tools");
  EXPECT_TRUE(MessageFormOf("{{ messages }}", "a", tools).is_plain());
  MessageForm form = MessageFormOf("...'</think>' in content", "<|assistant|>\n", kNoTools);
  EXPECT_TRUE(form.has_thoughts && !form.begins_in_thoughts);
  form = MessageFormOf("...'</think>' in content", "<|assistant|><think>\n", kNoTools);
  EXPECT_TRUE(form.has_thoughts && form.begins_in_thoughts);
  EXPECT_EQ(MessageFormOf("<tool_call>", "", kNoTools).tools, ToolForm::kNone);
  EXPECT_EQ(MessageFormOf("<tool_call>", "", tools).tools, ToolForm::kTagged);
  EXPECT_TRUE(MessageFormOf("<|channel|>final<|message|>", "", tools).needs_special_tokens());
}

// Templates as they come with models, where they are there.
TEST(MessageForm, IsKnownOfModelsThatAreRun) {
  const char* shared = std::getenv("WIDELOAD_SHARED");
  const std::string folder =
      std::string(shared ? shared : "../shared") + "/models/chat-templates/templates/";
  if (!FileExists(folder + "qwen3.jinja")) GTEST_SKIP() << folder << " is not there";
  const jinja::Value tools = jinja::ParseJsonValue("[]", "tools");
  const std::tuple<const char*, ToolForm, bool> cases[] = {
      {"qwen3", ToolForm::kTagged, true},
      {"qwen3-coder", ToolForm::kTagged, false},
      {"glm-4.5", ToolForm::kGlm, true},
      {"deepseek-v3", ToolForm::kDeepSeek, true},
      {"deepseek-r1", ToolForm::kDeepSeek, true},
      {"deepseek-v3-tools", ToolForm::kDeepSeek, false},
      {"deepseek-v3.1", ToolForm::kDeepSeek, true},
      {"kimi-k2-instruct", ToolForm::kKimi, false},
      {"kimi-k2-thinking", ToolForm::kKimi, true},
      {"llama-3.1", ToolForm::kLlama, false},
      {"llama-4", ToolForm::kLlama, false},
      {"llama-4-json", ToolForm::kLlama, false},
      {"mixtral", ToolForm::kNone, false},
  };
  for (const auto& [name, form, has_thoughts] : cases) {
    const MessageForm found =
        MessageFormOf(ReadFile(folder + name + ".jinja", 1 << 20), "a prompt", tools);
    EXPECT_EQ(found.tools, form) << name;
    EXPECT_EQ(found.has_thoughts, has_thoughts) << name;
    EXPECT_FALSE(found.has_channels) << name;
  }
  EXPECT_TRUE(MessageFormOf(ReadFile(folder + "gpt-oss.jinja", 1 << 20), "a", tools).has_channels);
}

}  // namespace
}  // namespace wideload::serve
