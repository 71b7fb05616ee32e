// The calls of tools as a model writes them, form by form, as parts of a grammar. Belongs to one
// thread.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "grammar/json_schema.h"
#include "jinja/value.h"
#include "serve/message_reader.h"

namespace wideload::serve {

// What is needed to write calls.
struct CallWriter {
  grammar::JsonRules& rules;
  // The bytes of a mark, which may be a special token.
  std::function<std::string(std::string_view mark)> mark;
  std::string_view chat_template;
};

// A text with marks <...> in it that may be special tokens.
grammar::ExpressionId MarkedText(const CallWriter& writer, std::string_view text);

// Calls of these tools: one of the function `only`, or one or more of any where it is empty (of
// harmony one). Arguments are as the functions' parameters ask. `tools` must outlive the building
// of the grammar. Errors: kUnsupported for a form that is none, and as SchemaReader, naming the
// tool; kInvalid for a tool without a name, and when no tool is called `only`.
grammar::ExpressionId CallsExpression(const CallWriter& writer, const MessageForm& form,
                                      const jinja::Value& tools, const std::string& only);

}  // namespace wideload::serve
