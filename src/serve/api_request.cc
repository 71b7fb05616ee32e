#include "serve/api_request.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "jinja/json_value.h"
#include "serve/responses_input.h"

namespace wideload::serve {
namespace {

const std::string kSource = "the body";

std::string Shown(const Json& value) {
  constexpr size_t kMaxShown = 80;
  const std::string text = DumpJson(value);
  const std::string_view begin = BeginOf(text, kMaxShown);
  return std::string(begin) + (begin.size() < text.size() ? "..." : "");
}

template <class IsItem>
bool IsListOf(const Json& value, IsItem is_item) {
  return value.is_array() && std::all_of(value.begin(), value.end(), is_item);
}

const char* AllowedOf(FieldType type) {
  switch (type) {
    case FieldType::kBool:
      return "true or false";
    case FieldType::kInteger:
      return "an integer";
    case FieldType::kNumber:
      return "a number";
    case FieldType::kText:
      return "a text";
    case FieldType::kTexts:
      return "a text or a list of texts";
    case FieldType::kPrompt:
      return "a text, a list of texts, of token ids, or of lists of token ids";
    case FieldType::kIds:
      return "a list of token ids";
    case FieldType::kObject:
      return "an object";
    case FieldType::kObjects:
      return "a list of objects";
    case FieldType::kAny:
      break;
  }
  return "any";
}

bool HasType(const Json& value, FieldType type) {
  switch (type) {
    case FieldType::kBool:
      return value.is_boolean();
    case FieldType::kInteger:
      return value.is_number_integer();
    case FieldType::kNumber:
      return value.is_number();
    case FieldType::kText:
      return value.is_string();
    case FieldType::kTexts:
      return value.is_string() || IsListOf(value, [](const Json& v) { return v.is_string(); });
    case FieldType::kPrompt:
      return value.is_string() || value.is_array();
    case FieldType::kIds:
      return IsListOf(value, [](const Json& v) { return v.is_number_integer(); });
    case FieldType::kObject:
      return value.is_object();
    case FieldType::kObjects:
      return IsListOf(value, [](const Json& v) { return v.is_object(); });
    case FieldType::kAny:
      break;
  }
  return true;
}

// "" when the value is of the row's type and range.
std::string WrongValue(const FieldRow& row, const Json& value) {
  if (!HasType(value, row.type))
    return fmt::format("is {}; it must be {}", Shown(value), AllowedOf(row.type));
  if (row.type != FieldType::kInteger && row.type != FieldType::kNumber) return "";
  const auto number = value.get<double>();
  if (number >= row.min && number <= row.max) return "";
  return fmt::format("is {}; allowed: {} to {}", Shown(value), row.min, row.max);
}

Refusal WrongField(std::string name, const std::string& wrong, const std::string& code) {
  constexpr size_t kMaxName = 128;
  name = BeginOf(name, kMaxName);
  return {.message = fmt::format("{} {}", name, wrong), .param = name, .code = code};
}

const FieldRow* FindRow(Operation operation, std::string_view name) {
  for (const FieldRow& row : FieldTable())
    if (row.name == name && (row.operations & operation) != 0) return &row;
  return nullptr;
}

jinja::Value Text(std::string_view text) { return jinja::Value::Text(std::string(text), true); }

std::string_view TextOf(const jinja::Value* value) {
  const jinja::MarkedText* text = value ? value->Str() : nullptr;
  return text ? std::string_view(text->text()) : std::string_view();
}

// Texts of a content that is a list of parts, joined: what templates know that show texts only.
std::string JoinParts(const jinja::Sequence& parts, jinja::Value& content) {
  std::string joined;
  for (size_t i = 0; i < parts.items.size(); ++i) {
    const jinja::Dict* part = parts.items[i].Map();
    const std::string_view type = part ? TextOf(part->Find("type")) : "";
    const jinja::Value* text = part ? part->Find("text") : nullptr;
    if (type != "text" || text == nullptr || text->Str() == nullptr)
      return fmt::format(
          "has a content part of type \"{}\"; only {{\"type\": \"text\", \"text\": ...}} is "
          "supported",
          BeginOf(type, 64));
    if (i > 0) joined += "\n";
    joined += TextOf(text);
  }
  content = Text(joined);
  return "";
}

jinja::Dict CopyOf(const jinja::Dict& dict) {
  jinja::Dict copy;
  for (const jinja::Dict::Entry& entry : dict.entries()) copy.Set(entry.key, entry.value);
  return copy;
}

jinja::Value Mapping(jinja::Dict dict) {
  return {std::make_shared<const jinja::Dict>(std::move(dict))};
}

// What is wrong with the tools, each {type: function, function: {name, parameters}}; "": nothing.
// Templates print anything, and a function without a name of its own could not be called.
std::string WrongTools(const jinja::Value& tools) {
  std::set<std::string_view> names;
  for (const jinja::Value& tool : tools.Seq()->items) {
    const jinja::Value* type = tool.Map()->Find("type");
    if (type != nullptr && TextOf(type) != "function")
      return fmt::format("has a tool of type \"{}\"; only functions are supported",
                         BeginOf(TextOf(type), 64));
    const jinja::Value* function = tool.Map()->Find("function");
    const jinja::Dict* fields = function != nullptr ? function->Map() : nullptr;
    const std::string_view name = fields != nullptr ? TextOf(fields->Find("name")) : "";
    if (name.empty())
      return "has a tool without a function: {...} whose name is a text of at least one character";
    if (!names.insert(name).second)
      return fmt::format("has two functions of the name \"{}\"", BeginOf(name, 64));
    const jinja::Value* parameters = fields->Find("parameters");
    if (parameters != nullptr && !parameters->IsNone() && parameters->Map() == nullptr)
      return fmt::format("has parameters of \"{}\" that are {}; they must be a JSON schema",
                         BeginOf(name, 64), jinja::KindOf(*parameters));
  }
  return "";
}

// What is wrong with what an assistant's message has as calls; "": nothing.
std::string WrongCalls(const jinja::Value& calls) {
  if (calls.Seq() == nullptr)
    return fmt::format("has tool_calls that are {}; they must be a list", jinja::KindOf(calls));
  for (const jinja::Value& call : calls.Seq()->items) {
    const jinja::Dict* given = call.Map();
    const jinja::Value* function = given != nullptr ? given->Find("function") : nullptr;
    const jinja::Dict* fields = function != nullptr ? function->Map() : nullptr;
    if (fields == nullptr || TextOf(fields->Find("name")).empty())
      return "has a call in tool_calls without a function: {...} with a name";
  }
  return "";
}

// Templates print arguments as JSON; a client sends them as a text that is JSON.
jinja::Value WithParsedArguments(const jinja::Value& call) {
  const jinja::Dict* given = call.Map();
  const jinja::Value* function = given ? given->Find("function") : nullptr;
  const jinja::Dict* fields = function ? function->Map() : nullptr;
  const jinja::Value* arguments = fields ? fields->Find("arguments") : nullptr;
  if (arguments == nullptr || arguments->Str() == nullptr) return call;
  jinja::Dict parsed = CopyOf(*fields);
  parsed.Set(Text("arguments"),
             jinja::ParseJsonValue(TextOf(arguments), "the arguments of a tool call"));
  jinja::Dict result = CopyOf(*given);
  result.Set(Text("function"), Mapping(std::move(parsed)));
  return Mapping(std::move(result));
}

// What is wrong with the message; "": nothing.
std::string TakeMessage(const jinja::Value& message, ApiRequest& request) {
  const jinja::Dict* fields = message.Map();
  if (fields == nullptr || TextOf(fields->Find("role")).empty())
    return "has no role that is a text";
  jinja::Dict result = CopyOf(*fields);
  if (const jinja::Value* content = fields->Find("content"); content && content->Seq()) {
    jinja::Value joined;
    std::string wrong = JoinParts(*content->Seq(), joined);
    if (!wrong.empty()) return wrong;
    result.Set(Text("content"), joined);
  } else if (content && !content->Str() && !content->IsNone()) {
    return fmt::format("has a content that is {}; it must be a text or a list of parts",
                       jinja::KindOf(*content));
  }
  if (const jinja::Value* calls = fields->Find("tool_calls"); calls && !calls->IsNone()) {
    if (std::string wrong = WrongCalls(*calls); !wrong.empty()) return wrong;
    std::vector<jinja::Value> parsed;
    for (const jinja::Value& call : calls->Seq()->items)
      parsed.push_back(WithParsedArguments(call));
    result.Set(Text("tool_calls"), jinja::MakeList(std::move(parsed)));
  }
  request.messages.push_back(Mapping(std::move(result)));
  return "";
}

std::optional<Refusal> TakeResponsesInput(const jinja::Dict& fields, ApiRequest& request,
                                          std::string& field) {
  Conversation conversation;
  std::string wrong = ReadResponsesInput(fields, conversation, field);
  if (wrong.empty() && conversation.tools.Seq() != nullptr) wrong = WrongTools(conversation.tools);
  if (!wrong.empty()) return WrongField(field, wrong, "invalid_value");
  request.tools = std::move(conversation.tools);
  field = "input";
  request.has_messages = true;
  for (const jinja::Value& message : conversation.messages) {
    wrong = TakeMessage(message, request);
    if (!wrong.empty()) return WrongField(field, wrong, "invalid_value");
  }
  return std::nullopt;
}

// What a template sees keeps the order of its keys, which Json does not. `field` is the one that is
// being read.
std::optional<Refusal> TakeConversation(Operation operation, std::string_view body,
                                        ApiRequest& request, std::string& field) {
  const jinja::Value document = jinja::ParseJsonValue(body, kSource);
  const jinja::Dict& fields = *document.Map();
  const auto given = [&](std::string_view name) {
    const jinja::Value* value = fields.Find(name);
    return value && !value->IsNone() ? value : nullptr;
  };
  if (const jinja::Value* variables = given("chat_template_kwargs"))
    request.template_variables = *variables;
  if (operation == kResponses) return TakeResponsesInput(fields, request, field);
  if (const jinja::Value* tools = given("tools"); tools && !tools->Seq()->items.empty()) {
    if (const std::string wrong = WrongTools(*tools); !wrong.empty())
      return WrongField("tools", wrong, "invalid_value");
    request.tools = *tools;
  }
  const jinja::Value* messages = given("messages");
  if (messages == nullptr) return std::nullopt;
  request.has_messages = true;
  for (size_t i = 0; i < messages->Seq()->items.size(); ++i) {
    field = fmt::format("messages[{}]", i);
    const std::string wrong = TakeMessage(messages->Seq()->items[i], request);
    if (!wrong.empty()) return WrongField(field, wrong, "invalid_value");
  }
  return std::nullopt;
}

std::optional<Refusal> Missing(const std::string& name) {
  return Refusal{.message = fmt::format("the field {} is missing", name),
                 .param = name,
                 .code = "missing_field"};
}

// What fields say together.
std::optional<Refusal> CheckTogether(Operation operation, ApiRequest& request) {
  if (operation == kCompletion && request.prompts.empty()) return Missing("prompt");
  if (operation == kResponses) {
    if (request.messages.empty()) return Missing("input");
    request.sampling.max_tokens = request.max_completion_tokens;
  }
  if (operation == kChat || operation == kApplyTemplate) {
    if (!request.has_messages) return Missing("messages");
    if (request.messages.empty())
      return WrongField("messages", "is an empty list; at least one is needed", "invalid_value");
  }
  if (operation == kTokenize && request.prompts.empty() == !request.has_messages)
    return Refusal{.message = "give either prompt or messages", .param = "prompt"};
  if (operation == kChat) {
    if (request.num_logprobs > 0 && !request.wants_logprobs)
      return WrongField("top_logprobs", "needs logprobs: true", "invalid_value");
    request.num_logprobs = request.wants_logprobs ? std::max(0, request.num_logprobs) : -1;
    if (request.max_completion_tokens) request.sampling.max_tokens = request.max_completion_tokens;
  }
  if (request.continue_final_message) {
    const jinja::Dict* last = request.messages.empty() ? nullptr : request.messages.back().Map();
    const jinja::Value* content = last != nullptr ? last->Find("content") : nullptr;
    if (request.add_generation_prompt.value_or(false))
      return WrongField("continue_final_message", "is true, and so is add_generation_prompt",
                        "invalid_value");
    if (content == nullptr || content->Str() == nullptr)
      return WrongField("continue_final_message", "needs a last message whose content is a text",
                        "invalid_value");
    if (request.tool_choice.is_forced())
      return WrongField("continue_final_message",
                        "is not supported beside a tool_choice that forces a call",
                        "unsupported_value");
  }
  if ((request.include_usage || request.continuous_usage) && !request.stream)
    return WrongField("stream_options", "needs stream: true", "invalid_value");
  const bool streams_prompt = request.echo || request.prompt_logprobs >= 0;
  if (request.stream && streams_prompt && request.prompt_logprobs >= 0)
    return WrongField("prompt_logprobs", "is not supported with stream", "unsupported_value");
  if (request.tool_choice.is_forced() && request.tools.IsNone())
    return WrongField("tool_choice", "needs tools", "invalid_value");
  if (request.tool_choice.is_forced() && request.form.kind != TextForm::Kind::kFree)
    return WrongField(request.form.field,
                      "is not supported beside a tool_choice that forces a call",
                      "unsupported_value");
  return std::nullopt;
}

}  // namespace

std::optional<Refusal> ParseApiRequest(Operation operation, std::string_view body,
                                       ApiRequest& request) {
  std::string field;  // that is being read
  try {
    const Json document = ParseJson(body, kSource);
    if (!document.is_object())
      return Refusal{.message = "the body is no JSON object", .code = "invalid_json"};
    for (const auto& [name, value] : document.items()) {
      const FieldRow* row = FindRow(operation, name);
      if (row == nullptr)
        return WrongField(name, "is a field that is not known here", "unknown_field");
      if (value.is_null()) continue;
      if (const std::string wrong = WrongValue(*row, value); !wrong.empty())
        return WrongField(name, wrong, "invalid_value");
      if (const std::string wrong = row->take(value, request); !wrong.empty())
        return WrongField(name, wrong, "unsupported_value");
    }
    if ((operation & (kChat | kTokenize | kApplyTemplate | kResponses)) != 0)
      if (auto refusal = TakeConversation(operation, body, request, field)) return refusal;
    field.clear();
    if (request.form.kind == TextForm::Kind::kSchema) {
      field = request.form.field;
      TakeSchema(jinja::ParseJsonValue(body, kSource), request.form);
    }
    if (operation == kDetokenize && document.value("tokens", Json()).is_null())
      return Missing("tokens");
    if (operation == kResponses) {
      request.said = document;
      request.said.erase("input");
    }
    return CheckTogether(operation, request);
  } catch (const Error& error) {
    return Refusal{
        .message = field.empty() ? error.what() : fmt::format("{}: {}", field, error.what()),
        .param = field,
        .code = "invalid_json"};
  }
}

}  // namespace wideload::serve
