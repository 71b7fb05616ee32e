#include "serve/text_form.h"

#include <utility>

#include "base/error.h"
#include "jinja/json_value.h"
#include "serve/refusal.h"

namespace wideload::serve {
namespace {

using Kind = TextForm::Kind;
using Path = std::vector<std::string>;

// Two fields may not both ask for a form.
std::string Ask(Kind kind, const std::string& field, TextForm& form) {
  if (form.kind != Kind::kFree)
    return fmt::format("is given beside {}; one of them is supported", form.field);
  form.kind = kind;
  form.field = field;
  return "";
}

std::string AskSchema(const Json& schema, Path path, TextForm& form) {
  const std::string field = path.front();
  if (!schema.is_object() && !schema.is_boolean() && !schema.is_string())
    return "has a schema that is no object";
  form.schema_path = std::move(path);
  return Ask(Kind::kSchema, field, form);
}

std::string AskChoice(const Json& choices, const std::string& field, TextForm& form) {
  if (!choices.is_array() || choices.empty()) return "has no list of texts to choose from";
  for (const Json& choice : choices) {
    if (!choice.is_string() || choice.get_ref<const std::string&>().empty())
      return "has a choice that is no text, or an empty one";
    form.choices.push_back(choice.get<std::string>());
  }
  return Ask(Kind::kChoice, field, form);
}

std::string AskPattern(const Json& pattern, const std::string& field, TextForm& form) {
  if (!pattern.is_string()) return "has a regular expression that is no text";
  form.pattern = pattern.get<std::string>();
  return Ask(Kind::kPattern, field, form);
}

// What both APIs say of a format; the schema lies at `path` behind its place in `value`.
std::string ReadFormat(const Json& value, const Json& with_schema, Path path, TextForm& form) {
  const Json type = value.value("type", Json());
  if (type == "text") return "";
  if (type == "json_object") return Ask(Kind::kObject, path.front(), form);
  if (type != "json_schema")
    return "has a type other than text, json_object and json_schema, which is not supported";
  if (!with_schema.is_object() || !with_schema.contains("schema")) return "has no schema";
  return AskSchema(with_schema["schema"], std::move(path), form);
}

}  // namespace

std::string ReadResponseFormat(const Json& value, TextForm& form) {
  return ReadFormat(value, value.value("json_schema", Json()),
                    {"response_format", "json_schema", "schema"}, form);
}

std::string ReadTextFormat(const Json& value, TextForm& form) {
  for (const auto& [key, member] : value.items()) {
    if (key == "verbosity" && (member.is_null() || member == "medium")) continue;
    if (key != "format" || !member.is_object())
      return fmt::format("has the member \"{}\", which is not supported", BeginOf(key, 64));
    std::string wrong = ReadFormat(member, member, {"text", "format", "schema"}, form);
    if (!wrong.empty()) return wrong;
  }
  return "";
}

std::string ReadGuidedJson(const Json& value, TextForm& form) {
  return AskSchema(value, {"guided_json"}, form);
}

std::string ReadGuidedChoice(const Json& value, TextForm& form) {
  return AskChoice(value, "guided_choice", form);
}

std::string ReadGuidedRegex(const Json& value, TextForm& form) {
  return AskPattern(value, "guided_regex", form);
}

std::string ReadStructuredOutputs(const Json& value, TextForm& form) {
  const std::string field = "structured_outputs";
  for (const auto& [key, member] : value.items()) {
    if (member.is_null()) continue;
    std::string wrong;
    if (key == "json")
      wrong = AskSchema(member, {field, key}, form);
    else if (key == "choice")
      wrong = AskChoice(member, field, form);
    else if (key == "regex")
      wrong = AskPattern(member, field, form);
    else if (key == "json_object" && member == true)
      wrong = Ask(Kind::kObject, field, form);
    else if (key != "json_object")
      wrong = fmt::format("has the member \"{}\"; supported are json, json_object, choice, regex",
                          BeginOf(key, 64));
    if (!wrong.empty()) return wrong;
  }
  return "";
}

std::string ReadToolChoice(const Json& value, ToolChoice& choice) {
  using Forced = ToolChoice::Kind;
  if (value == "auto") return "";
  if (value == "none" || value == "required") {
    choice.kind = value == "none" ? Forced::kNone : Forced::kRequired;
    return "";
  }
  const Json type = value.is_object() ? value.value("type", Json()) : Json();
  const Json function = type == "function" ? value.value("function", value) : Json();
  const Json name = function.is_object() ? function.value("name", Json()) : Json();
  if (!name.is_string())
    return "is neither \"none\", \"auto\", \"required\" nor a function with a name; others are "
           "not supported";
  choice.kind = Forced::kNamed;
  choice.name = name.get<std::string>();
  return "";
}

void TakeSchema(const jinja::Value& body, TextForm& form) {
  const jinja::Value* schema = &body;
  for (const std::string& step : form.schema_path) {
    schema = schema->Map() != nullptr ? schema->Map()->Find(step) : nullptr;
    if (schema == nullptr) Throw(ErrorKind::kInvalid, "{} has no schema", form.field);
  }
  form.schema = schema->Str() != nullptr
                    ? jinja::ParseJsonValue(schema->Str()->text(), "the schema")
                    : *schema;
}

}  // namespace wideload::serve
