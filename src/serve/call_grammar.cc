#include "serve/call_grammar.h"

#include <deque>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "grammar/schema_values.h"
#include "serve/refusal.h"

namespace wideload::serve {
namespace {

using grammar::ExpressionId;
using grammar::GrammarBuilder;
using grammar::MemberOf;
using grammar::SchemaReader;
using jinja::Value;

constexpr std::string_view kArgumentEnd = "</arg_value>";

// A function that can be called.
struct Tool {
  std::string name;
  const Value* parameters = nullptr;  // null: not said
  std::string where;
};

std::vector<Tool> ToolsOf(const Value& tools, const std::string& only) {
  std::vector<Tool> found;
  const size_t count = tools.Seq() != nullptr ? tools.Seq()->items.size() : 0;
  for (size_t i = 0; i < count; ++i) {
    const std::string where = fmt::format("tools[{}]", i);
    const Value* function = MemberOf(tools.Seq()->items[i], "function");
    const Value* name = function != nullptr ? MemberOf(*function, "name") : nullptr;
    if (name == nullptr || name->Str() == nullptr || name->Str()->text().empty())
      Throw(ErrorKind::kInvalid, "{} has no function with a name", where);
    if (!only.empty() && name->Str()->text() != only) continue;
    const Value* parameters = MemberOf(*function, "parameters");
    if (parameters != nullptr && parameters->IsNone()) parameters = nullptr;
    found.push_back({.name = name->Str()->text(),
                     .parameters = parameters,
                     .where = where + ".function.parameters"});
  }
  if (found.empty())
    Throw(ErrorKind::kInvalid, "tool_choice names the function {}, which is not among the tools",
          DumpJson(BeginOf(only, 64)));
  return found;
}

// Writes one call after the other.
class CallForms {
 public:
  explicit CallForms(const CallWriter& writer)
      : writer_(writer), rules_(writer.rules), builder_(writer.rules.builder()) {}

  ExpressionId Calls(const MessageForm& form, const std::vector<Tool>& tools, bool is_one) {
    std::vector<ExpressionId> ways;
    for (const Tool& tool : tools) ways.push_back(Call(form, tool));
    const ExpressionId call = builder_.Choice(std::move(ways));
    if (form.has_channels) return call;
    std::string_view begin, between, end;
    switch (form.tools) {
      case ToolForm::kNone:
        break;
      case ToolForm::kTagged:
      case ToolForm::kGlm:
        between = "\n";
        break;
      case ToolForm::kDeepSeek:
        begin = "<｜tool▁calls▁begin｜>";
        between = is_of_r1() ? "\n" : "";
        end = "<｜tool▁calls▁end｜>";
        break;
      case ToolForm::kKimi:
        begin = "<|tool_calls_section_begin|>";
        end = "<|tool_calls_section_end|>";
        break;
      case ToolForm::kLlama:
        between = "; ";
        break;
    }
    const ExpressionId more = builder_.Row({Text(between), call});
    const uint32_t num_more = is_one ? 0 : GrammarBuilder::kUnbounded;
    return builder_.Row({Text(begin), call, builder_.Repeat(more, 0, num_more), Text(end)});
  }

 private:
  ExpressionId Text(std::string_view text) { return MarkedText(writer_, text); }
  // Of DeepSeek V3 and R1: arguments are in a block of code.
  bool is_of_r1() const { return writer_.chat_template.find("```json") != kNowhere; }

  ExpressionId Call(const MessageForm& form, const Tool& tool) {
    const std::string& name = tool.name;
    if (form.has_channels)
      return builder_.Row(
          {Text("<|channel|>commentary to=functions." + name + " <|constrain|>json<|message|>"),
           Arguments(tool)});
    switch (form.tools) {
      case ToolForm::kNone:
        break;
      case ToolForm::kTagged:
        if (writer_.chat_template.find("<function=") != kNowhere)
          Throw(ErrorKind::kUnsupported,
                "this model writes calls as <function=NAME><parameter=KEY>, a form that is not "
                "supported here");
        return builder_.Row({Text("<tool_call>\n{\"name\": "), rules_.Text(name),
                             builder_.Bytes(", \"arguments\": "), Arguments(tool),
                             Text("}\n</tool_call>")});
      case ToolForm::kGlm:
        return builder_.Row({Text("<tool_call>"), builder_.Bytes(name + "\n"), GlmArguments(tool),
                             Text("</tool_call>")});
      case ToolForm::kDeepSeek:
        if (is_of_r1())
          return builder_.Row({Text("<｜tool▁call▁begin｜>function<｜tool▁sep｜>"),
                               builder_.Bytes(name + "\n```json\n"), Arguments(tool),
                               Text("\n```<｜tool▁call▁end｜>")});
        return builder_.Row({Text("<｜tool▁call▁begin｜>"), builder_.Bytes(name),
                             Text("<｜tool▁sep｜>"), Arguments(tool), Text("<｜tool▁call▁end｜>")});
      case ToolForm::kKimi:
        return builder_.Row({Text("<|tool_call_begin|>"), builder_.Bytes("functions." + name + ":"),
                             builder_.Repeat(builder_.AnyByte('0', '9'), 1, 3),
                             Text("<|tool_call_argument_begin|>"), Arguments(tool),
                             Text("<|tool_call_end|>")});
      case ToolForm::kLlama:
        return builder_.Row({builder_.Bytes("{\"name\": "), rules_.Text(name),
                             builder_.Bytes(", \"parameters\": "), Arguments(tool),
                             builder_.Bytes("}")});
    }
    Throw(ErrorKind::kUnsupported,
          "the model's chat template shows no form of calls that is supported here");
  }

  // Arguments are an object, whatever the parameters' schema says of a type.
  ExpressionId Arguments(const Tool& tool) {
    if (tool.parameters == nullptr) return builder_.Call(rules_.AnyObject());
    std::string pointer;
    SchemaReader& reader = ReaderOf(tool);
    const Value& schema = reader.Resolved(*tool.parameters, pointer);
    const Value* type = MemberOf(schema, "type");
    const bool is_object = type != nullptr ? type->Str() && type->Str()->text() == "object"
                                           : MemberOf(schema, "properties") != nullptr;
    if (!is_object && schema.Map() != nullptr && schema.Map()->entries().empty())
      return builder_.Call(rules_.AnyObject());
    if (!is_object)
      Throw(ErrorKind::kUnsupported, "{} is no schema of the type object", tool.where);
    return builder_.Call(reader.RuleOf(schema, pointer));
  }

  SchemaReader& ReaderOf(const Tool& tool) {
    return readers_.emplace_back(rules_, *tool.parameters, tool.where);
  }

  // <arg_key>KEY</arg_key>\n<arg_value>VALUE</arg_value>\n; texts have no quotes.
  ExpressionId GlmArguments(const Tool& tool) {
    if (tool.parameters == nullptr) return builder_.Empty();
    std::string pointer;
    SchemaReader& reader = ReaderOf(tool);
    const Value& schema = reader.Resolved(*tool.parameters, pointer);
    if (schema.Map() == nullptr)
      Throw(ErrorKind::kUnsupported, "{} is no schema of the type object", tool.where);
    GrammarBuilder::List list{.items = {}, .separator = builder_.Empty()};
    for (const SchemaReader::Member& member : reader.MembersOf(*schema.Map(), pointer).listed)
      list.items.push_back(
          {.part = builder_.Row({Text("<arg_key>"), builder_.Bytes(member.name),
                                 Text("</arg_key>\n<arg_value>"), GlmValue(reader, member, tool),
                                 builder_.Bytes("\n")}),
           .is_optional = !member.is_required});
    return builder_.Separated(std::move(list));
  }

  // With its end.
  ExpressionId GlmValue(SchemaReader& reader, const SchemaReader::Member& member,
                        const Tool& tool) {
    const Value* type = member.schema != nullptr ? MemberOf(*member.schema, "type") : nullptr;
    const bool is_text = type != nullptr && type->Str() && type->Str()->text() == "string";
    if (!is_text) {
      const grammar::RuleId rule = member.schema != nullptr
                                       ? reader.RuleOf(*member.schema, member.pointer)
                                       : rules_.AnyValue();
      return builder_.Row({builder_.Call(rule), Text(kArgumentEnd)});
    }
    for (const char* keyword : {"pattern", "format", "minLength", "maxLength", "const"})
      if (MemberOf(*member.schema, keyword) != nullptr)
        Throw(ErrorKind::kUnsupported, "{}: {}/{} is not supported in this model's form of calls",
              tool.where, member.pointer, keyword);
    const Value* choices = MemberOf(*member.schema, "enum");
    if (choices == nullptr) return builder_.Until(writer_.mark(kArgumentEnd));
    std::vector<ExpressionId> ways;
    if (choices->Seq() != nullptr)
      for (const Value& choice : choices->Seq()->items)
        if (choice.Str() != nullptr) ways.push_back(builder_.Bytes(choice.Str()->text()));
    return builder_.Row({builder_.Choice(std::move(ways)), Text(kArgumentEnd)});
  }

  const CallWriter& writer_;
  grammar::JsonRules& rules_;
  GrammarBuilder& builder_;
  std::deque<SchemaReader> readers_;
};

}  // namespace

ExpressionId MarkedText(const CallWriter& writer, std::string_view text) {
  GrammarBuilder& builder = writer.rules.builder();
  std::vector<ExpressionId> parts;
  while (!text.empty()) {
    const size_t begin = text.find('<');
    if (begin != 0) {
      parts.push_back(builder.Bytes(text.substr(0, begin)));
      text.remove_prefix(std::min(begin, text.size()));
      continue;
    }
    const std::string_view mark = text.substr(0, std::min(text.find('>'), text.size() - 1) + 1);
    parts.push_back(builder.Bytes(writer.mark(mark)));
    text.remove_prefix(mark.size());
  }
  return builder.Row(std::move(parts));
}

ExpressionId CallsExpression(const CallWriter& writer, const MessageForm& form, const Value& tools,
                             const std::string& only) {
  return CallForms(writer).Calls(form, ToolsOf(tools, only), !only.empty());
}

}  // namespace wideload::serve
