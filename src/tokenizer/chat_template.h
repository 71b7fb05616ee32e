// Renders a conversation by the chat template (a subset of Jinja) of a checkpoint. Immutable after
// construction; thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace wideload::tokenizer {

struct ChatMessage {
  std::string role;
  std::string content;
};

// What a template sees.
struct ChatInput {
  std::vector<ChatMessage> messages;
  bool add_generation_prompt = false;  // end with the opening of the assistant's turn
  std::string bos_token;
  std::string eos_token;
};

struct TemplateProgram;

// Supported: {{ }} and {# #}; for over lists, if, elif, else, set; strings, integers, true, false,
// none; and, or, not, in, not in, comparisons, + - * % ~; x.name, x['name'], x[0]; loop.first,
// .last, .index, .index0, .length; the tests defined, undefined, none, string; the filters trim and
// length; raise_exception(text). White space as transformers sets it: trim_blocks and
// lstrip_blocks.
class ChatTemplate {
 public:
  // `text` is the template, `source` its name in errors. Errors: kUnsupported or kCorrupt with the
  // line and the construct.
  ChatTemplate(std::string_view text, std::string source);
  // The template of the model in `folder`: chat_template.jinja or the field chat_template of
  // tokenizer_config.json (of several the one named default). Errors: the above; kNotFound when
  // the model has none.
  static ChatTemplate FromFolder(const std::string& folder);

  // The rendered conversation. What comes from the messages is plain (but for roles of the letters
  // a-z and _), so that it cannot become special tokens: encode with Tokenizer::EncodeParts.
  // Errors: kInvalid when the template refuses the conversation (raise_exception) or meets values
  // that it cannot work with, kResource when it exceeds its bounds of steps and bytes.
  std::vector<TextPart> Render(const ChatInput& input) const;

 private:
  std::string source_;
  std::shared_ptr<const TemplateProgram> program_;  // shared by copies of this template; immutable
};

// The fields bos_token and eos_token of a tokenizer_config.json, empty where absent.
struct SpecialTexts {
  std::string bos_token;
  std::string eos_token;
};
// Errors: kCorrupt, kInvalid; kNotFound when `folder` has no tokenizer_config.json.
SpecialTexts ReadSpecialTexts(const std::string& folder);

}  // namespace wideload::tokenizer
