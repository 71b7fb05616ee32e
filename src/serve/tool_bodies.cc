#include "serve/tool_bodies.h"

#include "base/error.h"
#include "base/json.h"

namespace wideload::serve {
namespace {

constexpr size_t kNowhere = std::string_view::npos;
using Call = std::optional<ToolCall>;

std::string_view Trimmed(std::string_view text) {
  constexpr std::string_view kBlanks = " \n\r\t";
  const size_t begin = text.find_first_not_of(kBlanks);
  if (begin == kNowhere) return {};
  return text.substr(begin, text.find_last_not_of(kBlanks) + 1 - begin);
}

// What comes before and after the first `mark`; none when it is not there.
std::optional<std::pair<std::string_view, std::string_view>> Cut(std::string_view text,
                                                                 std::string_view mark) {
  const size_t at = text.find(mark);
  if (at == kNowhere) return std::nullopt;
  return std::pair(text.substr(0, at), text.substr(at + mark.size()));
}

std::optional<Json> Parsed(std::string_view text) {
  try {
    return ParseJson(std::string(text), "a tool call");
  } catch (const Error&) {
    return std::nullopt;
  }
}

// Where the text in quotes that begins the text ends, past the quote; kNowhere when it does not.
size_t EndOfQuoted(std::string_view text) {
  for (size_t i = 1; i < text.size(); ++i) {
    if (text[i] == '\\')
      ++i;
    else if (text[i] == '"')
      return i + 1;
  }
  return kNowhere;
}

// Of a JSON object: what is written behind the key, up to the end of the object.
std::string_view BehindKey(std::string_view object, std::string_view key) {
  int depth = 0;
  for (size_t i = 0; i < object.size(); ++i) {
    const char c = object[i];
    depth += c == '{' || c == '[' ? 1 : c == '}' || c == ']' ? -1 : 0;
    if (c != '"') continue;
    const std::string_view rest = object.substr(i);
    const size_t end = EndOfQuoted(rest);
    if (end == kNowhere) return {};
    const std::string_view after = Trimmed(rest.substr(end));
    const bool is_key = depth == 1 && after.starts_with(':');
    if (is_key && rest.substr(1, end - 2) == key) return Trimmed(after.substr(1));
    i += end - 1;
  }
  return {};
}

// {"name": ..., KEY: {...}}; arguments may also be a text that is JSON, or be missing.
Call ParseJsonCall(std::string_view body, const char* key) {
  const std::optional<Json> call = Parsed(body);
  if (!call || !call->is_object() || !call->contains("name") || !(*call)["name"].is_string())
    return std::nullopt;
  const auto name = (*call)["name"].get<std::string>();
  if (!call->contains(key)) return MakeToolCall(name, "{}");
  const Json& arguments = (*call)[key];
  if (arguments.is_string()) return MakeToolCall(name, arguments.get<std::string>());
  return MakeToolCall(name, FirstJsonObject(BehindKey(body, key)));
}

// The members of an object that is written value by value.
class Arguments {
 public:
  Arguments(std::string_view function, const TextParameters& text_parameters)
      : function_(function), text_parameters_(text_parameters) {}
  // A value is JSON where it can be and the schema does not say that it is a text.
  void Add(std::string_view key, std::string_view value) {
    const bool is_text = text_parameters_.contains({function_, std::string(key)});
    const bool is_json = !is_text && Parsed(value).has_value();
    text_ += fmt::format("{}{}: {}", text_.empty() ? "" : ", ", DumpJson(std::string(key)),
                         is_json ? std::string(Trimmed(value)) : DumpJson(std::string(value)));
  }
  std::string json() const { return "{" + text_ + "}"; }

 private:
  std::string function_;
  const TextParameters& text_parameters_;
  std::string text_;
};

// NAME <arg_key>KEY</arg_key> <arg_value>VALUE</arg_value> ...
Call ParseGlmCall(std::string_view body, const TextParameters& text_parameters) {
  const std::string_view name = Trimmed(body.substr(0, body.find("<arg_key>")));
  if (name.empty() || name.find_first_of("<>{}\n") != kNowhere) return std::nullopt;
  Arguments arguments(name, text_parameters);
  while (const auto pair = Cut(body, "<arg_key>")) {
    const auto key = Cut(pair->second, "</arg_key>");
    const auto begin = key ? Cut(key->second, "<arg_value>") : std::nullopt;
    const auto value = begin ? Cut(begin->second, "</arg_value>") : std::nullopt;
    if (!value) return std::nullopt;
    arguments.Add(Trimmed(key->first), value->first);
    body = value->second;
  }
  return MakeToolCall(name, arguments.json());
}

// <function=NAME> <parameter=KEY> VALUE </parameter> ... </function>; each value on lines of its
// own.
Call ParseFunctionTag(std::string_view body, const TextParameters& text_parameters) {
  const auto begin = Cut(body, "<function=");
  const auto head = begin ? Cut(begin->second, ">") : std::nullopt;
  if (!head) return std::nullopt;
  Arguments arguments(head->first, text_parameters);
  body = head->second;
  while (const auto parameter = Cut(body, "<parameter=")) {
    const auto key = Cut(parameter->second, ">");
    const auto value = key ? Cut(key->second, "</parameter>") : std::nullopt;
    if (!value) return std::nullopt;
    std::string_view text = value->first;
    if (text.starts_with('\n')) text.remove_prefix(1);
    if (text.ends_with('\n')) text.remove_suffix(1);
    arguments.Add(key->first, text);
    body = value->second;
  }
  return MakeToolCall(head->first, arguments.json());
}

Call ParseDeepSeekCall(std::string_view body) {
  const auto parts = Cut(body, "<｜tool▁sep｜>");
  if (!parts) return std::nullopt;
  const auto fenced = Cut(parts->second, "```json");
  if (!fenced) return MakeToolCall(parts->first, parts->second);
  return MakeToolCall(fenced->first, fenced->second.substr(0, fenced->second.rfind("```")));
}

// The model's id is functions.NAME:INDEX; its template shows it with the result of the call.
Call ParseKimiCall(std::string_view body) {
  const auto parts = Cut(body, "<|tool_call_argument_begin|>");
  if (!parts) return std::nullopt;
  const std::string_view id = Trimmed(parts->first);
  std::string_view name = id.substr(0, id.rfind(':'));
  constexpr std::string_view kPrefix = "functions.";
  if (name.starts_with(kPrefix)) name.remove_prefix(kPrefix.size());
  return MakeToolCall(name, parts->second, id);
}

}  // namespace

Call MakeToolCall(std::string_view name, std::string_view arguments, std::string_view id) {
  name = Trimmed(name);
  arguments = Trimmed(arguments);
  const std::optional<Json> json = Parsed(arguments);
  if (name.empty() || !json || !json->is_object()) return std::nullopt;
  return ToolCall{
      .name = std::string(name), .arguments = std::string(arguments), .id = std::string(id)};
}

std::string_view FirstJsonObject(std::string_view text) {
  int depth = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '"') {
      const size_t end = EndOfQuoted(text.substr(i));
      if (end == kNowhere) return {};
      i += end - 1;
    }
    depth += c == '{' ? 1 : c == '}' ? -1 : 0;
    if (depth == 0) return c == '}' ? text.substr(0, i + 1) : std::string_view();
  }
  return {};
}

std::optional<ToolCall> ParseToolCall(ToolForm form, std::string_view body,
                                      const TextParameters& text_parameters) {
  switch (form) {
    case ToolForm::kNone:
      break;
    case ToolForm::kTagged:
      return Trimmed(body).starts_with("<function=") ? ParseFunctionTag(body, text_parameters)
                                                     : ParseJsonCall(body, "arguments");
    case ToolForm::kGlm:
      return ParseGlmCall(body, text_parameters);
    case ToolForm::kDeepSeek:
      return ParseDeepSeekCall(body);
    case ToolForm::kKimi:
      return ParseKimiCall(body);
    case ToolForm::kLlama:
      return ParseJsonCall(body, "parameters");
  }
  return std::nullopt;
}

TextParameters TextParametersOf(const jinja::Value& tools) {
  TextParameters found;
  const auto member = [](const jinja::Value* value, std::string_view key) {
    const jinja::Dict* fields = value != nullptr ? value->Map() : nullptr;
    return fields != nullptr ? fields->Find(key) : nullptr;
  };
  const auto text = [](const jinja::Value* value) {
    const jinja::MarkedText* marked = value != nullptr ? value->Str() : nullptr;
    return marked != nullptr ? std::string(marked->text()) : std::string();
  };
  if (tools.Seq() == nullptr) return found;
  for (const jinja::Value& tool : tools.Seq()->items) {
    const jinja::Value* function = member(&tool, "function");
    const jinja::Value* properties = member(member(function, "parameters"), "properties");
    if (properties == nullptr || properties->Map() == nullptr) continue;
    for (const jinja::Dict::Entry& entry : properties->Map()->entries())
      if (text(member(&entry.value, "type")) == "string")
        found.emplace(text(member(function, "name")), text(&entry.key));
  }
  return found;
}

}  // namespace wideload::serve
