// Takes apart what a model writes in a chat, as it comes: what it thinks, what it says, and the
// calls of tools. Not thread-safe.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "serve/tool_calls.h"

namespace wideload::serve {

// How a model writes its messages.
struct MessageForm {
  bool has_thoughts = false;        // between <think> and </think>, at the beginning
  bool begins_in_thoughts = false;  // the prompt has opened them
  bool has_channels = false;        // of harmony: thoughts, text and calls in channels
  bool goes_on = false;             // the prompt has the begin of the message
  ToolForm tools = ToolForm::kNone;
  TextParameters text_parameters = {};  // of the tools

  // All of it is text.
  bool is_plain() const { return !has_thoughts && !has_channels && tools == ToolForm::kNone; }
  // The marks are special tokens, which must be in the text then.
  bool needs_special_tokens() const { return has_channels; }
};
// The form that a model has learnt, as its chat template shows it, after this prompt. Calls are
// looked for where there are tools.
MessageForm MessageFormOf(std::string_view chat_template, std::string_view prompt,
                          const jinja::Value& tools);

// The same of a message whose begin, `content`, is in the prompt already.
void GoOn(std::string_view content, MessageForm& form);

// What a piece of text has brought.
struct MessagePart {
  std::string thoughts;
  std::string content;
  std::vector<ToolCall> calls;
};

// Thoughts between <think> and </think>; line ends beside these marks are no text.
class ThoughtReader {
 public:
  explicit ThoughtReader(const MessageForm& form)
      : state_(form.begins_in_thoughts ? form.goes_on ? kInside : kOpened
               : form.goes_on          ? kContent
                                       : kBegin) {}
  // Takes the next text, and the rest once no more comes.
  MessagePart Feed(std::string_view text);
  MessagePart Flush();

 private:
  enum State { kBegin, kOpened, kInside, kClosed, kContent };
  bool Advance(MessagePart& part);

  State state_;
  std::string held_;
};

// The channels of harmony: <|channel|>NAME to=RECIPIENT<|message|>TEXT<|end|>. analysis is
// thoughts; what is for functions.NAME is a call of it; the rest is content.
class ChannelReader {
 public:
  // `is_in_content`: without a header, this is content.
  explicit ChannelReader(bool is_in_content)
      : kind_(is_in_content ? Kind::kContent : Kind::kHeader), has_begun_(is_in_content) {}
  // Takes the next text, and the rest once no more comes.
  MessagePart Feed(std::string_view text);
  MessagePart Flush();

 private:
  enum class Kind { kHeader, kThoughts, kContent, kCall };
  void ReadHeader(std::string_view header);
  void TakeBody(std::string_view text, MessagePart& part);
  void EndBody(MessagePart& part);

  Kind kind_;
  bool has_begun_;
  std::string function_;
  std::string arguments_;
  std::string held_;
};

class MessageReader {
 public:
  explicit MessageReader(const MessageForm& form);
  // Takes the next text, and the rest once no more comes.
  MessagePart Feed(std::string_view text);
  MessagePart Flush();

 private:
  std::optional<ChannelReader> channels_;
  std::optional<ThoughtReader> thoughts_;
  std::optional<ToolCallReader> calls_;
};

}  // namespace wideload::serve
