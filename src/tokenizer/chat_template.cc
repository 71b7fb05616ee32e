#include "tokenizer/chat_template.h"

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "tokenizer/template_program.h"
#include "tokenizer/template_renderer.h"

namespace wideload::tokenizer {
namespace {

constexpr uint64_t kMaxTemplateBytes = 1 << 20;

std::string ConfigPath(const std::string& folder) { return folder + "/tokenizer_config.json"; }

std::string TemplateOfConfig(const std::string& path) {
  const Json json = ReadJsonFile(path);
  const JsonFields fields(json, path);
  const Json* value = fields.Find("chat_template");
  if (value == nullptr)
    Throw(ErrorKind::kNotFound, "{} is missing; a model without it cannot chat",
          fields.Where("chat_template"));
  if (!value->is_array()) return fields.String("chat_template");
  for (const Json& one : *value) {
    const JsonFields named(one, path, "chat_template[]");
    if (named.String("name") == "default") return named.String("template");
  }
  fields.Refuse("chat_template", "a string, or a list with a template named default");
}

// A token is a string or an object with the field content.
std::string SpecialText(const JsonFields& fields, std::string_view name) {
  const Json* value = fields.Find(name);
  if (value != nullptr && value->is_object()) return fields.Object(name).String("content");
  return fields.StringOr(name, "");
}

// A role is printed between the template's own signs ("<|" + role + "|>"), which together may be a
// special token; a role that is no plain word gets no such trust.
MarkedString RoleOf(const ChatMessage& message) {
  const bool is_word = std::all_of(message.role.begin(), message.role.end(),
                                   [](char c) { return (c >= 'a' && c <= 'z') || c == '_'; });
  return is_word ? MarkedString::FromTemplate(message.role)
                 : MarkedString::FromMessage(message.role);
}

TemplateMap VariablesOf(const ChatInput& input) {
  TemplateList messages;
  for (const ChatMessage& message : input.messages) {
    TemplateMap fields{{"role", {RoleOf(message)}},
                       {"content", {MarkedString::FromMessage(message.content)}}};
    messages.push_back({std::make_shared<const TemplateMap>(std::move(fields))});
  }
  return {{"messages", {std::make_shared<const TemplateList>(std::move(messages))}},
          {"add_generation_prompt", {input.add_generation_prompt}},
          {"bos_token", {MarkedString::FromTemplate(input.bos_token)}},
          {"eos_token", {MarkedString::FromTemplate(input.eos_token)}},
          {"tools", {TemplateNone{}}},
          {"documents", {TemplateNone{}}}};
}

std::vector<TextPart> PartsOf(const MarkedString& string) {
  std::vector<TextPart> parts;
  for (size_t begin = 0; begin < string.text.size();) {
    const char mark = string.is_plain[begin];
    const size_t end =
        std::min(string.is_plain.find(mark == '\0' ? '\1' : '\0', begin), string.text.size());
    parts.push_back({.text = string.text.substr(begin, end - begin), .is_plain = mark != '\0'});
    begin = end;
  }
  return parts;
}

}  // namespace

ChatTemplate::ChatTemplate(std::string_view text, std::string source) : source_(std::move(source)) {
  if (text.size() > kMaxTemplateBytes)
    Throw(ErrorKind::kUnsupported, "{}: the chat template has {} bytes; at most {} are supported",
          source_, text.size(), kMaxTemplateBytes);
  program_ = std::make_shared<const TemplateProgram>(ParseTemplate(text, source_));
}

ChatTemplate ChatTemplate::FromFolder(const std::string& folder) {
  const std::string file = folder + "/chat_template.jinja";
  if (FileExists(file)) return {ReadFile(file, kMaxTemplateBytes), file};
  const std::string config = ConfigPath(folder);
  return {TemplateOfConfig(config), config + ": chat_template"};
}

std::vector<TextPart> ChatTemplate::Render(const ChatInput& input) const {
  return PartsOf(RunTemplate(*program_, VariablesOf(input), source_));
}

SpecialTexts ReadSpecialTexts(const std::string& folder) {
  const std::string path = ConfigPath(folder);
  const Json json = ReadJsonFile(path);
  const JsonFields fields(json, path);
  return {.bos_token = SpecialText(fields, "bos_token"),
          .eos_token = SpecialText(fields, "eos_token")};
}

}  // namespace wideload::tokenizer
