#include "serve/responses_input.h"

#include <fmt/format.h>

#include <optional>
#include <string_view>

#include "serve/refusal.h"

namespace wideload::serve {
namespace {

using jinja::Dict;
using jinja::Value;
using Wrong = std::string;

Value Text(std::string_view text) { return Value::Text(std::string(text), true); }

Value Mapping(Dict dict) { return {std::make_shared<const Dict>(std::move(dict))}; }

// Null where there is none, and for null.
const Value* Given(const Dict& dict, std::string_view name) {
  const Value* value = dict.Find(name);
  return value != nullptr && !value->IsNone() ? value : nullptr;
}

std::string TextOf(const Value* value) {
  const jinja::MarkedText* text = value != nullptr ? value->Str() : nullptr;
  return text != nullptr ? std::string(text->text()) : std::string();
}

Value Message(std::string_view role, const Value& content) {
  Dict message;
  message.Set(Text("role"), Text(role));
  message.Set(Text("content"), content);
  return Mapping(std::move(message));
}

// Makes messages of items, one after the other.
class ItemReader {
 public:
  explicit ItemReader(std::vector<Value>& messages) : messages_(messages) {}

  Wrong Read(const Value& item) {
    const Dict* fields = item.Map();
    if (fields == nullptr) return "is no object";
    const std::string type = TextOf(Given(*fields, "type"));
    if (type.empty() || type == "message") return ReadMessage(*fields);
    if (type == "function_call") return ReadCall(*fields);
    if (type == "function_call_output") return ReadOutput(*fields);
    if (type == "reasoning") return ReadThoughts(*fields);
    return fmt::format("is of type \"{}\", which is not supported", BeginOf(type, 64));
  }
  // Calls that came last.
  void Finish() {
    if (calls_.empty() && thoughts_.empty()) return;
    Dict message;
    message.Set(Text("role"), Text("assistant"));
    message.Set(Text("content"), Text(""));
    AddAssistantFields(message);
    messages_.push_back(Mapping(std::move(message)));
  }

 private:
  Wrong ReadMessage(const Dict& fields) {
    std::string role = TextOf(Given(fields, "role"));
    if (role.empty()) return "has no role that is a text";
    if (role == "developer") role = "system";
    const Value* content = Given(fields, "content");
    if (content == nullptr) return "has no content";
    Value parts = *content;
    if (Wrong wrong = ReadParts(parts); !wrong.empty()) return wrong;
    if (role != "assistant") {
      Finish();
      messages_.push_back(Message(role, parts));
      return "";
    }
    if (!calls_.empty()) Finish();  // what it says now comes after these calls
    Dict message;
    message.Set(Text("role"), Text(role));
    message.Set(Text("content"), parts);
    AddAssistantFields(message);
    messages_.push_back(Mapping(std::move(message)));
    return "";
  }

  // Parts of a responses message have names of their own.
  static Wrong ReadParts(Value& content) {
    if (content.Seq() == nullptr) return "";
    std::vector<Value> parts;
    for (const Value& part : content.Seq()->items) {
      const Dict* fields = part.Map();
      const std::string type = fields != nullptr ? TextOf(Given(*fields, "type")) : "";
      const Value* text = fields != nullptr ? Given(*fields, "text") : nullptr;
      const bool is_text = type == "input_text" || type == "output_text" || type == "text";
      if (!is_text || text == nullptr || text->Str() == nullptr)
        return fmt::format("has a content part of type \"{}\"; only texts are supported",
                           BeginOf(type, 64));
      Dict plain;
      plain.Set(Text("type"), Text("text"));
      plain.Set(Text("text"), *text);
      parts.push_back(Mapping(std::move(plain)));
    }
    content = jinja::MakeList(std::move(parts));
    return "";
  }

  Wrong ReadCall(const Dict& fields) {
    const Value* name = Given(fields, "name");
    const Value* arguments = Given(fields, "arguments");
    if (TextOf(name).empty() || TextOf(arguments).empty())
      return "is a call without name or arguments that are texts";
    Dict function;
    function.Set(Text("name"), *name);
    function.Set(Text("arguments"), *arguments);
    Dict call;
    call.Set(Text("id"), Text(TextOf(Given(fields, "call_id"))));
    call.Set(Text("type"), Text("function"));
    call.Set(Text("function"), Mapping(std::move(function)));
    calls_.push_back(Mapping(std::move(call)));
    return "";
  }

  Wrong ReadOutput(const Dict& fields) {
    const Value* output = Given(fields, "output");
    if (output == nullptr || output->Str() == nullptr) return "has no output that is a text";
    Finish();
    Dict message;
    message.Set(Text("role"), Text("tool"));
    message.Set(Text("tool_call_id"), Text(TextOf(Given(fields, "call_id"))));
    message.Set(Text("content"), *output);
    messages_.push_back(Mapping(std::move(message)));
    return "";
  }

  Wrong ReadThoughts(const Dict& fields) {
    const Value* content = Given(fields, "content");
    if (content == nullptr || content->Seq() == nullptr) return "";  // a summary at most
    for (const Value& part : content->Seq()->items)
      if (part.Map() != nullptr) thoughts_ += TextOf(Given(*part.Map(), "text"));
    return "";
  }

  void AddAssistantFields(Dict& message) {
    if (!thoughts_.empty()) message.Set(Text("reasoning_content"), Text(thoughts_));
    if (!calls_.empty()) message.Set(Text("tool_calls"), jinja::MakeList(std::move(calls_)));
    thoughts_.clear();
    calls_.clear();
  }

  std::vector<Value>& messages_;
  std::vector<Value> calls_;  // of the message that has not come to its end
  std::string thoughts_;
};

// {type, name, ...} becomes {type, function: {name, ...}}.
Wrong ReadTools(const Value& given, Value& tools) {
  std::vector<Value> read;
  for (const Value& tool : given.Seq()->items) {
    const std::string type = TextOf(Given(*tool.Map(), "type"));
    if (type != "function")
      return fmt::format("has a tool of type \"{}\"; only functions are supported",
                         BeginOf(type, 64));
    Dict function;
    for (const Dict::Entry& entry : tool.Map()->entries())
      if (TextOf(&entry.key) != "type") function.Set(entry.key, entry.value);
    Dict nested;
    nested.Set(Text("type"), Text(type));
    nested.Set(Text("function"), Mapping(std::move(function)));
    read.push_back(Mapping(std::move(nested)));
  }
  if (!read.empty()) tools = jinja::MakeList(std::move(read));
  return "";
}

}  // namespace

std::string ReadResponsesInput(const Dict& body, Conversation& conversation, std::string& field) {
  std::vector<Value>& messages = conversation.messages;
  if (const std::string text = TextOf(Given(body, "instructions")); !text.empty())
    messages.push_back(Message("system", Text(text)));
  const Value* input = Given(body, "input");
  if (input != nullptr && input->Str() != nullptr) messages.push_back(Message("user", *input));
  if (input != nullptr && input->Seq() != nullptr) {
    ItemReader reader(messages);
    for (size_t i = 0; i < input->Seq()->items.size(); ++i) {
      field = fmt::format("input[{}]", i);
      if (Wrong wrong = reader.Read(input->Seq()->items[i]); !wrong.empty()) return wrong;
    }
    reader.Finish();
  }
  field = "tools";
  const Value* tools = Given(body, "tools");
  return tools != nullptr ? ReadTools(*tools, conversation.tools) : "";
}

}  // namespace wideload::serve
