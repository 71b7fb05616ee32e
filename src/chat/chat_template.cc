#include "chat/chat_template.h"

#include <algorithm>

#include "base/file.h"
#include "base/json.h"
#include "tokenizer/unicode.h"

namespace wideload::chat {
namespace {

using jinja::Value;
using tokenizer::TextPart;

std::string ConfigPath(const std::string& folder) { return folder + "/tokenizer_config.json"; }

std::string ValidUtf8(std::string_view text) {
  return tokenizer::IsValidUtf8(text) ? std::string(text) : tokenizer::WithReplacements(text);
}

// A role is printed between the template's own signs ("<|" + role + "|>"), which together may be a
// special token; a role that is no plain word gets no such trust.
Value TrustedRole(const Value& role) {
  const jinja::MarkedText* text = role.Str();
  const bool is_word = text && std::all_of(text->text().begin(), text->text().end(), [](char c) {
                         return (c >= 'a' && c <= 'z') || c == '_';
                       });
  return is_word ? Value::Text(text->text(), false) : role;
}

// What transformers makes of a message before a template sees it.
Value Prepared(const Value& message, size_t index) {
  const jinja::Dict* given = message.Map();
  if (given == nullptr)
    Throw(ErrorKind::kInvalid, "message {} is {}; it must be a mapping", index,
          jinja::KindOf(message));
  jinja::Dict dict;
  for (const jinja::Dict::Entry& entry : given->entries()) {
    if (entry.value.IsNone()) continue;
    const jinja::MarkedText* key = entry.key.Str();
    const bool is_role = key && key->text() == "role";
    dict.Set(entry.key, is_role ? TrustedRole(entry.value) : entry.value);
  }
  for (const std::string_view name : {"reasoning_content", "thinking", "reasoning"}) {
    const Value* found = dict.Find(name);
    if (found == nullptr) continue;
    const Value reasoning = *found;
    dict.Set(Value::Text("reasoning_content", false), reasoning);
    if (dict.Find("thinking") == nullptr) dict.Set(Value::Text("thinking", false), reasoning);
    break;
  }
  return {std::make_shared<const jinja::Dict>(std::move(dict))};
}

// Adds the bytes of the strings in `value` to `bytes`.
void Measure(const Value& value, int64_t& bytes) {
  if (const jinja::MarkedText* text = value.Str()) bytes += static_cast<int64_t>(text->size());
  if (const jinja::Sequence* sequence = value.Seq())
    for (const Value& item : sequence->items) Measure(item, bytes);
  if (const jinja::Dict* dict = value.Map()) {
    for (const jinja::Dict::Entry& entry : dict->entries()) {
      Measure(entry.key, bytes);
      Measure(entry.value, bytes);
    }
  }
}

void CheckSize(const ChatInput& input, const ChatLimits& limits) {
  if (static_cast<int64_t>(input.messages.size()) > limits.max_messages)
    Throw(ErrorKind::kResource, "the conversation has {} messages; at most {} are allowed",
          input.messages.size(), limits.max_messages);
  int64_t bytes = 0;
  for (const Value& message : input.messages) Measure(message, bytes);
  for (const auto& [name, value] : input.variables) Measure(value, bytes);
  Measure(input.tools, bytes);
  if (bytes > limits.max_input_bytes)
    Throw(ErrorKind::kResource, "the conversation has {} bytes of text; at most {} are allowed",
          bytes, limits.max_input_bytes);
}

// Stands where the last message is to be gone on with; the blank behind it tells whether the
// template takes blanks away at the end of a content.
constexpr std::string_view kContinuedMark = "\uE000here\uE001 ";

Value WithContinuedMark(const Value& message) {
  const jinja::Dict* given = message.Map();
  const Value* content = given ? given->Find("content") : nullptr;
  if (content == nullptr || content->Str() == nullptr)
    Throw(ErrorKind::kInvalid,
          "continue_final_message: the last message has no content that is a text");
  jinja::Dict dict;
  for (const jinja::Dict::Entry& entry : given->entries()) dict.Set(entry.key, entry.value);
  dict.Set(Value::Text("content", false),
           Value::Text(content->Str()->text() + std::string(kContinuedMark), true));
  return {std::make_shared<const jinja::Dict>(std::move(dict))};
}

// Takes away the mark and what stands behind it, as transformers does.
void CutAtContinuedMark(std::vector<TextPart>& parts) {
  const std::string text = JoinedText(parts);
  const size_t at = text.rfind(kContinuedMark.substr(0, kContinuedMark.size() - 1));
  if (at == std::string::npos)
    Throw(ErrorKind::kInvalid,
          "continue_final_message: the chat template does not show the last message's content");
  size_t size = at;
  if (text.compare(at, kContinuedMark.size(), kContinuedMark) != 0)
    size = at == 0 ? 0 : text.find_last_not_of(" \n\r\t", at - 1) + 1;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (size <= parts[i].text.size()) {
      parts[i].text.resize(size);
      parts.resize(i + 1);
      return;
    }
    size -= parts[i].text.size();
  }
}

std::vector<TextPart> PartsOf(const jinja::MarkedText& text) {
  std::vector<TextPart> parts;
  size_t done = 0;
  const auto append = [&](size_t end, bool is_plain) {
    if (end > done)
      parts.push_back({.text = text.text().substr(done, end - done), .is_plain = is_plain});
    done = end;
  };
  for (const jinja::MarkedText::Span& span : text.plain()) {
    append(span.begin, false);
    append(span.end, true);
  }
  append(text.size(), false);
  return parts;
}

}  // namespace

Value Message(std::string_view role, std::string_view content) {
  jinja::Dict dict;
  dict.Set(Value::Text("role", false), Value::Text(ValidUtf8(role), true));
  dict.Set(Value::Text("content", false), Value::Text(ValidUtf8(content), true));
  return {std::make_shared<const jinja::Dict>(std::move(dict))};
}

void AddVariables(const Value& object, const std::string& source, ChatInput& input) {
  if (object.Map() == nullptr)
    Throw(ErrorKind::kInvalid, "{} is {}; it must be an object of variables", source,
          jinja::KindOf(object));
  for (const jinja::Dict::Entry& entry : object.Map()->entries()) {
    const jinja::MarkedText* name = entry.key.Str();
    if (name == nullptr)
      Throw(ErrorKind::kInvalid, "{}: a name is {}; it must be a string", source,
            jinja::KindOf(entry.key));
    if (name->text() == "messages" || name->text() == "add_generation_prompt")
      Throw(ErrorKind::kInvalid, "{} has the member {}, which is given by other means", source,
            name->text());
    if (name->text() == "tools")
      input.tools = entry.value;
    else
      input.variables.emplace_back(name->text(), entry.value);
  }
}

ChatTemplate::ChatTemplate(std::string_view text, std::string source)
    : default_(jinja::Template(text, std::move(source))) {}

ChatTemplate ChatTemplate::FromFile(const std::string& path) {
  return {ReadFile(path, jinja::Template::kMaxBytes), path == "-" ? "standard input" : path};
}

ChatTemplate ChatTemplate::FromFolder(const std::string& folder) {
  const std::string file = folder + "/chat_template.jinja";
  if (FileExists(file)) return FromFile(file);
  const std::string path = ConfigPath(folder);
  const Json json = ReadJsonFile(path);
  const JsonFields fields(json, path);
  const Json* value = fields.Find("chat_template");
  if (value == nullptr)
    Throw(ErrorKind::kNotFound, "{} is missing, and so is {}; a model without them cannot chat",
          fields.Where("chat_template"), file);
  const std::string source = path + ": chat_template";
  if (!value->is_array()) return {fields.String("chat_template"), source};
  ChatTemplate named;
  for (const Json& one : *value) {
    const JsonFields member(one, path, "chat_template[]");
    const std::string name = member.String("name");
    const std::string text = member.String("template");
    if (name == "default") named.default_.emplace(text, source + " default");
    if (name != "tool_use") continue;
    try {
      named.tool_use_.emplace(text, source + " tool_use");
    } catch (const Error& error) {
      named.tool_use_error_ = error;  // conversations without tools do not need it
    }
  }
  if (!named.default_)
    fields.Refuse("chat_template", "a string, or a list with a template named default");
  return named;
}

const jinja::Template& ChatTemplate::Choose(bool has_tools) const {
  if (has_tools && tool_use_error_) throw Error(*tool_use_error_);
  if (has_tools && tool_use_) return *tool_use_;
  WIDELOAD_CHECK(default_, "a chat template without a text");
  return *default_;
}

std::vector<TextPart> ChatTemplate::Render(const ChatInput& input,
                                           const ChatOptions& options) const {
  CheckSize(input, options.limits);
  const bool goes_on = input.continue_final_message;
  if (goes_on && (input.add_generation_prompt || input.messages.empty()))
    Throw(ErrorKind::kInvalid, "continue_final_message: {}",
          input.messages.empty() ? "there is no message" : "add_generation_prompt is true, too");
  std::vector<Value> messages;
  for (size_t i = 0; i < input.messages.size(); ++i) {
    const bool is_last = i + 1 == input.messages.size();
    messages.push_back(
        Prepared(goes_on && is_last ? WithContinuedMark(input.messages[i]) : input.messages[i], i));
  }
  Variables variables{{"messages", jinja::MakeList(std::move(messages))},
                      {"add_generation_prompt", {input.add_generation_prompt}},
                      {"tools", input.tools},
                      {"documents", {jinja::None{}}}};
  variables.insert(variables.end(), input.variables.begin(), input.variables.end());
  std::vector<TextPart> parts =
      PartsOf(Choose(!input.tools.IsNone())
                  .Render(variables, {.now = options.now, .limits = options.limits.render}));
  if (goes_on) CutAtContinuedMark(parts);
  return parts;
}

namespace {

// A token is a string or an object with the field content.
std::string ReadToken(const JsonFields& fields, std::string_view name) {
  return fields.Required(name).is_object() ? fields.Object(name).String("content")
                                           : fields.String(name);
}

}  // namespace

Variables SpecialTokens(const std::string& folder) {
  const std::string path = ConfigPath(folder);
  if (!FileExists(path)) return {};
  const Json json = ReadJsonFile(path);
  const JsonFields fields(json, path);
  Variables tokens;
  for (const char* name : {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token",
                           "cls_token", "mask_token"}) {
    if (fields.Has(name)) tokens.emplace_back(name, Value::Text(ReadToken(fields, name), false));
  }
  return tokens;
}

std::string EosToken(const std::string& folder) {
  const std::string path = ConfigPath(folder);
  if (!FileExists(path)) return "";
  const Json json = ReadJsonFile(path);
  const JsonFields fields(json, path);
  return fields.Has("eos_token") ? ReadToken(fields, "eos_token") : "";
}

std::string JoinedText(const std::vector<TextPart>& parts) {
  std::string text;
  for (const TextPart& part : parts) text += part.text;
  return text;
}

}  // namespace wideload::chat
