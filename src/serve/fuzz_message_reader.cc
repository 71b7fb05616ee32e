// What a model writes, in pieces, in every form: the pieces bring what the whole brings, the
// arguments of calls are JSON objects, and what is neither thought nor call is there as text.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/json.h"
#include "serve/message_reader.h"

namespace {

using namespace wideload;         // NOLINT(google-build-using-namespace): a program of one file
using namespace wideload::serve;  // NOLINT(google-build-using-namespace)

// Long marks that a byte stands for: inputs meet them.
constexpr std::string_view kWords[] = {"<think>",
                                       "</think>",
                                       "<tool_call>",
                                       "</tool_call>",
                                       "<function=f>",
                                       "<parameter=code>",
                                       "</parameter>",
                                       "<arg_key>",
                                       "</arg_key>",
                                       "<arg_value>",
                                       "</arg_value>",
                                       "<｜tool▁call▁begin｜>",
                                       "<｜tool▁sep｜>",
                                       "<｜tool▁call▁end｜>",
                                       "<｜tool▁calls▁begin｜>",
                                       "```json",
                                       "<|tool_call_begin|>",
                                       "<|tool_call_argument_begin|>",
                                       "<|tool_call_end|>",
                                       "<|tool_calls_section_end|>",
                                       "<|channel|>",
                                       "<|message|>",
                                       "<|end|>",
                                       " to=functions.f",
                                       R"({"name": "f", "arguments": {"a": 1}})",
                                       R"({"name": "f", "parameters": {}})",
                                       "{\"a\": 1}"};
constexpr uint8_t kFirstWord = 0xC8;  // bytes from here on are words

MessageForm FormOf(uint8_t byte) {
  MessageForm form;
  form.has_channels = byte % 8 == 7;
  form.has_thoughts = !form.has_channels && (byte & 8) != 0;
  form.begins_in_thoughts = form.has_thoughts && (byte & 16) != 0;
  if (!form.has_channels) form.tools = static_cast<ToolForm>(byte % 8 % 6);
  form.goes_on = (byte & 32) != 0;
  form.text_parameters = {{"f", "code"}};
  return form;
}

MessagePart Read(const MessageForm& form, std::string_view text, size_t size) {
  MessageReader reader(form);
  MessagePart all;
  const auto take = [&all](MessagePart part) {
    all.thoughts += part.thoughts;
    all.content += part.content;
    std::move(part.calls.begin(), part.calls.end(), std::back_inserter(all.calls));
  };
  for (size_t at = 0; at < text.size(); at += size) take(reader.Feed(text.substr(at, size)));
  take(reader.Flush());
  return all;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const MessageForm form = FormOf(data[0]);
  std::string text;
  for (size_t i = 2; i < size; ++i) {
    if (data[i] >= kFirstWord)
      text += kWords[(data[i] - kFirstWord) % std::size(kWords)];
    else
      text += static_cast<char>(data[i] & 0x7F);  // texts of the tokenizer are UTF-8
  }
  const MessagePart whole = Read(form, text, std::max<size_t>(text.size(), 1));
  const MessagePart pieces = Read(form, text, size_t{1} + data[1] % 16);
  WIDELOAD_CHECK(whole.thoughts == pieces.thoughts, "thoughts '{}' and '{}'", whole.thoughts,
                 pieces.thoughts);
  WIDELOAD_CHECK(whole.content == pieces.content, "content '{}' and '{}'", whole.content,
                 pieces.content);
  WIDELOAD_CHECK(whole.calls.size() == pieces.calls.size(), "{} and {} calls", whole.calls.size(),
                 pieces.calls.size());
  for (size_t i = 0; i < whole.calls.size(); ++i) {
    const ToolCall& call = whole.calls[i];
    WIDELOAD_CHECK(call.name == pieces.calls[i].name && call.arguments == pieces.calls[i].arguments,
                   "calls of {}", call.name);
    WIDELOAD_CHECK(ParseJson(call.arguments, "arguments").is_object(), "{}", call.arguments);
  }
  WIDELOAD_CHECK(!form.is_plain() || whole.content == text, "text is lost");
  return 0;
}
