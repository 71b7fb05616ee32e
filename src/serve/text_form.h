// What a request asks of the form of the generated text, and how its fields say so. Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "jinja/value.h"

namespace wideload::serve {

// Of the generated text, or of the content of a model's message.
struct TextForm {
  // What it must be.
  enum class Kind {
    kFree,
    kObject,   // any JSON object
    kSchema,   // JSON that a schema allows
    kChoice,   // one of some texts
    kPattern,  // matched by a regular expression
  };
  Kind kind = Kind::kFree;
  std::string field;                     // that says so
  std::vector<std::string> schema_path;  // where the schema lies in the body
  jinja::Value schema{jinja::None{}};    // of kSchema, with its keys in their order
  std::vector<std::string> choices;
  std::string pattern;
};

// Which tools the model may call.
struct ToolChoice {
  enum class Kind { kAuto, kNone, kRequired, kNamed };
  Kind kind = Kind::kAuto;
  std::string name;  // of kNamed

  // It has to call one.
  bool is_forced() const { return kind == Kind::kRequired || kind == Kind::kNamed; }
};

// These take the value of a field and return what is wrong with it, after the field's name; "":
// nothing. {"type": "text" | "json_object" | "json_schema", "json_schema": {"schema": {...}}}
std::string ReadResponseFormat(const Json& value, TextForm& form);
// Of /v1/responses: {"format": {"type": ..., "schema": {...}}}.
std::string ReadTextFormat(const Json& value, TextForm& form);
// vLLM's: a schema, as an object or as a text that is JSON.
std::string ReadGuidedJson(const Json& value, TextForm& form);
// Texts.
std::string ReadGuidedChoice(const Json& value, TextForm& form);
// A regular expression.
std::string ReadGuidedRegex(const Json& value, TextForm& form);
// vLLM's: {"json" | "json_object" | "choice" | "regex": ...}
std::string ReadStructuredOutputs(const Json& value, TextForm& form);
// "none", "auto", "required", or a function by its name, in the form of chats or of responses.
std::string ReadToolChoice(const Json& value, ToolChoice& choice);

// Sets the schema of a kSchema from the body, in which keys are in their order. Errors: as
// jinja::ParseJsonValue, for one that is a text.
void TakeSchema(const jinja::Value& body, TextForm& form);

}  // namespace wideload::serve
