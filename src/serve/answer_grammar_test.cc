#include <gtest/gtest.h>

#include <random>

#include "base/error.h"
#include "grammar/schema_values.h"
#include "grammar/testing.h"
#include "serve/api_request.h"
#include "serve/call_grammar.h"

namespace wideload::serve {
namespace {

const jinja::Value& Tools() {
  static const jinja::Value tools = jinja::ParseJsonValue(
      R"([{"type": "function", "function": {"name": "look", "parameters": {"type": "object",
           "properties": {"place": {"type": "string"}, "unit": {"type": "string", "enum": ["C", "F"]},
           "days": {"type": "integer", "minimum": 1, "maximum": 14}}, "required": ["place", "days"]}}},
          {"type": "function", "function": {"name": "stop"}}])",
      "tools");
  return tools;
}

grammar::Grammar CallsOf(const MessageForm& form, std::string_view chat_template,
                         const std::string& only) {
  grammar::GrammarBuilder builder;
  grammar::JsonRules rules(builder);
  const CallWriter writer{.rules = rules,
                          .mark = [](std::string_view mark) { return std::string(mark); },
                          .chat_template = chat_template};
  const grammar::RuleId root = builder.AddRule();
  builder.Define(root, CallsExpression(writer, form, Tools(), only));
  return builder.Build(root);
}

// A text of the grammar, by chance; "" when it does not come to its end. What closes a text or a
// list is three times as likely.
std::string AnyText(const std::shared_ptr<grammar::TokenGrammar>& shared, std::mt19937& random) {
  grammar::TokenMatcher matcher(shared);
  std::string text;
  for (int step = 0; step < 2000; ++step) {
    if (matcher.IsEnd() && (!matcher.GoesOn() || random() % 2 == 0)) return text;
    const auto allowed = matcher.Allowed();
    std::vector<int32_t> choices;
    for (int32_t token = 0; token < 256; ++token) {
      if (!grammar::IsAllowed(*allowed, token)) continue;
      const bool closes = std::string_view("\"]}<").find(static_cast<char>(token)) != kNowhere;
      for (int i = 0; i < (closes ? 3 : 1); ++i) choices.push_back(token);
    }
    const int32_t token = choices.at(random() % choices.size());
    EXPECT_TRUE(matcher.Advance(token));
    text += grammar::SmallTrie()->BytesOf(token);
  }
  return "";
}

struct FormCase {
  const char* name;
  MessageForm form;
  const char* chat_template;
};

std::vector<FormCase> FormCases() {
  const TextParameters texts = TextParametersOf(Tools());
  return {{"tagged", {.tools = ToolForm::kTagged}, ""},
          {"glm", {.tools = ToolForm::kGlm, .text_parameters = texts}, ""},
          {"deepseek v3.1", {.tools = ToolForm::kDeepSeek}, ""},
          {"deepseek r1", {.tools = ToolForm::kDeepSeek}, "```json"},
          {"kimi", {.tools = ToolForm::kKimi}, ""},
          {"llama", {.tools = ToolForm::kLlama}, ""},
          {"harmony", {.has_channels = true}, ""}};
}

// Of the tools above.
void ExpectGoodCall(const ToolCall& call, const std::string& text) {
  const Json arguments = Json::parse(call.arguments, nullptr, false);
  ASSERT_TRUE(arguments.is_object()) << text;
  if (call.name == "stop") return;
  EXPECT_EQ(call.name, "look") << text;
  ASSERT_TRUE(arguments.contains("place") && arguments.contains("days")) << text;
  EXPECT_TRUE(arguments["place"].is_string()) << text;
  EXPECT_TRUE(arguments["days"].is_number_integer() && arguments["days"] >= 1 &&
              arguments["days"] <= 14)
      << text;
  for (const auto& [key, value] : arguments.items())
    EXPECT_TRUE(key == "place" || key == "days" ||
                (key == "unit" && (value == "C" || value == "F")))
        << text;
}

TEST(CallsExpression, MakesCallsThatAreReadBackInEveryForm) {
  std::mt19937 random(3);
  for (const FormCase& one : FormCases()) {
    for (const std::string only : {"", "look"}) {
      const auto shared = std::make_shared<grammar::TokenGrammar>(
          CallsOf(one.form, one.chat_template, only), grammar::SmallTrie());
      int num_read = 0;
      for (int run = 0; run < 30; ++run) {
        const std::string text = AnyText(shared, random);
        if (text.empty()) continue;
        MessageReader reader(one.form);
        MessagePart part = reader.Feed(text);
        MessagePart rest = reader.Flush();
        part.calls.insert(part.calls.end(), rest.calls.begin(), rest.calls.end());
        EXPECT_EQ(part.content + rest.content, "") << one.name << ": " << text;
        if (!only.empty()) {
          ASSERT_EQ(part.calls.size(), 1u) << one.name << ": " << text;
          EXPECT_EQ(part.calls.front().name, only);
        }
        ASSERT_FALSE(part.calls.empty()) << one.name << ": " << text;
        for (const ToolCall& call : part.calls) ExpectGoodCall(call, text);
        ++num_read;
      }
      EXPECT_GT(num_read, 15) << one.name;
    }
  }
}

std::string WhyNoCalls(const MessageForm& form, std::string_view chat_template,
                       const std::string& only) {
  try {
    CallsOf(form, chat_template, only);
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

TEST(CallsExpression, RefusesFormsAndFunctionsByName) {
  EXPECT_NE(WhyNoCalls({}, "", "").find("no form of calls"), std::string::npos);
  EXPECT_NE(WhyNoCalls({.tools = ToolForm::kTagged}, "<function=x>", "").find("<function=NAME>"),
            std::string::npos);
  EXPECT_NE(WhyNoCalls({.tools = ToolForm::kTagged}, "", "other").find("the function \"other\""),
            std::string::npos);
}

std::string FormOf(const char* fields, TextForm& form, Operation operation = kChat) {
  ApiRequest request;
  const std::string body =
      operation == kChat
          ? fmt::format(R"({{"messages": [{{"role": "user", "content": "x"}}], {}}})", fields)
          : fmt::format(R"({{"input": "x", {}}})", fields);
  const auto refusal = ParseApiRequest(operation, body, request);
  form = request.form;
  return refusal ? refusal->message : "";
}

TEST(TextForm, IsReadFromEachField) {
  using Kind = TextForm::Kind;
  const auto kind = [](const char* fields, Operation operation = kChat) {
    TextForm form;
    EXPECT_EQ(FormOf(fields, form, operation), "") << fields;
    return form.kind;
  };
  EXPECT_EQ(kind(R"("response_format": {"type": "text"})"), Kind::kFree);
  EXPECT_EQ(kind(R"("response_format": {"type": "json_object"})"), Kind::kObject);
  EXPECT_EQ(kind(R"("structured_outputs": {"json_object": true, "regex": null})"), Kind::kObject);
  EXPECT_EQ(kind(R"("structured_outputs": {"choice": ["a"]})"), Kind::kChoice);
  EXPECT_EQ(kind(R"("guided_choice": ["a", "b"])"), Kind::kChoice);
  EXPECT_EQ(kind(R"("guided_regex": "a+")"), Kind::kPattern);
  EXPECT_EQ(kind(R"("text": {"format": {"type": "json_object"}})", kResponses), Kind::kObject);
  TextForm form;
  for (
      const char* fields :
      {R"("response_format": {"type": "json_schema", "json_schema": {"name": "n", "strict": true,
            "schema": {"type": "object", "properties": {"z": {}, "a": {}}}}})",
       R"("guided_json": {"type": "object", "properties": {"z": {}, "a": {}}})",
       R"("guided_json": "{\"type\": \"object\", \"properties\": {\"z\": {}, \"a\": {}}}")",
       R"("structured_outputs": {"json": {"type": "object", "properties": {"z": {}, "a": {}}}})"}) {
    EXPECT_EQ(FormOf(fields, form), "") << fields;
    ASSERT_EQ(form.kind, Kind::kSchema);
    const jinja::Value* properties = grammar::MemberOf(form.schema, "properties");
    ASSERT_NE(properties, nullptr);
    EXPECT_EQ(properties->Map()->entries().front().key.Str()->text(), "z") << "in their order";
  }
}

TEST(TextForm, IsRefusedWhereItIsNone) {
  TextForm form;
  const std::vector<std::pair<const char*, const char*>> cases = {
      {R"("response_format": {"type": "grammar"})", "response_format has a type other than"},
      {R"("response_format": {"type": "json_schema"})", "response_format has no schema"},
      {R"("response_format": {"type": "json_schema", "json_schema": {"schema": 3}})",
       "response_format has a schema that is no object"},
      {R"("guided_choice": [])", "guided_choice has no list"},
      {R"("structured_outputs": {"grammar": "x"})", "has the member \"grammar\""},
      {R"("guided_regex": "a", "response_format": {"type": "json_object"})",
       "response_format is given beside guided_regex"},
      {R"("guided_json": "{")", "guided_json"},
      {R"("tool_choice": "required")", "tool_choice needs tools"},
      {R"("tool_choice": "any")", "tool_choice is neither"},
      {R"("tool_choice": "required", "tools": [{"type": "function", "function": {"name": "f"}}],
          "guided_regex": "a")",
       "guided_regex is not supported beside a tool_choice"},
  };
  for (const auto& [fields, wrong] : cases)
    EXPECT_NE(FormOf(fields, form).find(wrong), std::string::npos)
        << fields << ": " << FormOf(fields, form);
}

}  // namespace
}  // namespace wideload::serve
