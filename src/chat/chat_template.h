// Renders a conversation by the chat template of a checkpoint, as transformers does. Immutable
// after construction; thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "jinja/template.h"
#include "jinja/value.h"
#include "tokenizer/tokenizer.h"

namespace wideload::chat {

// Names and values that a template sees beside the conversation.
using Variables = std::vector<std::pair<std::string, jinja::Value>>;

// A message of a role and a text.
jinja::Value Message(std::string_view role, std::string_view content);

// What a template sees. Values that came from outside are plain (jinja::ParseJsonValue makes them
// so); special tokens, which are to be recognised, are not.
struct ChatInput {
  std::vector<jinja::Value> messages{};  // mappings
  jinja::Value tools{jinja::None{}};     // a list of mappings, or none
  bool add_generation_prompt = false;    // end with the opening of the assistant's turn
  bool continue_final_message = false;   // end with the last message's content, to be gone on with
  Variables variables{};                 // special tokens and further ones; the last wins
};

// Adds the members of `object`, a mapping, to the variables of `input`; the member tools takes the
// place of its tools. Errors: kInvalid with `source` for something else, and for members that are
// told by other means: messages, add_generation_prompt.
void AddVariables(const jinja::Value& object, const std::string& source, ChatInput& input);

// What a conversation may be at most.
struct ChatLimits {
  int64_t max_messages = 100'000;
  int64_t max_input_bytes = int64_t{32} << 20;  // of strings in messages, tools and variables
  jinja::RenderLimits render{};
};

// What a rendering depends on beside the conversation.
struct ChatOptions {
  jinja::CivilTime now{};  // what strftime_now() shows
  ChatLimits limits{};
};

class ChatTemplate {
 public:
  // `text` is the template, `source` its name in errors. Errors: as jinja::Template.
  ChatTemplate(std::string_view text, std::string source);
  // A file with a template. Errors: the above; kNotFound, kIo.
  static ChatTemplate FromFile(const std::string& path);
  // The template of the model in `folder`: chat_template.jinja, else the field chat_template of
  // tokenizer_config.json: a text, or a list of named ones, of which "default" is used and, with
  // tools, "tool_use" where there is one. Errors: the above; kNotFound when the model has none.
  static ChatTemplate FromFolder(const std::string& folder);

  // The rendered conversation. What comes from messages, tools and plain variables is plain (but
  // for roles of the letters a-z and _), so that it cannot become special tokens: encode with
  // Tokenizer::EncodeParts. As transformers does, members of a message that are null are left out
  // first, and the first of reasoning_content, thinking and reasoning becomes reasoning_content,
  // and thinking where that is missing. Errors: kInvalid when the template refuses the
  // conversation (raise_exception) or meets values that it cannot work with, and for messages that
  // are no mappings; kUnsupported for what it asks of Python and is not there; kResource beyond
  // the limits. With continue_final_message: kInvalid without a last message whose content is a
  // text, where the template does not show this, and beside add_generation_prompt.
  std::vector<tokenizer::TextPart> Render(const ChatInput& input, const ChatOptions& options) const;

  // What it is made of: how the model writes is seen in it. Errors: as Render where the template
  // for tools cannot be used.
  const std::string& text(bool has_tools) const { return Choose(has_tools).text(); }

 private:
  ChatTemplate() = default;
  const jinja::Template& Choose(bool has_tools) const;

  std::optional<jinja::Template> default_;
  std::optional<jinja::Template> tool_use_;
  std::optional<Error> tool_use_error_;  // why it cannot be used; told when tools are given
};

// The special tokens that the tokenizer_config.json of a model names (bos_token, eos_token, ...),
// as variables of its template. None when the file is not there. Errors: kCorrupt, kInvalid.
Variables SpecialTokens(const std::string& folder);
// The text of its eos_token; "" where there is none. Errors: as above.
std::string EosToken(const std::string& folder);

// The parts' texts joined.
std::string JoinedText(const std::vector<tokenizer::TextPart>& parts);

}  // namespace wideload::chat
