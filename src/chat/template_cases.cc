#include "chat/template_cases.h"

#include "base/json.h"
#include "jinja/json_value.h"

namespace wideload::chat {
namespace {

using jinja::Value;

// The member of a case; null where it is not given.
const Value* Member(const Value& one, std::string_view name) {
  const Value* value = one.Map()->Find(name);
  return value == nullptr || value->IsNone() ? nullptr : value;
}

[[noreturn]] void Refuse(std::string_view name, const Value& found, std::string_view allowed) {
  Throw(ErrorKind::kInvalid, "{} is {}; it must be {}", name, jinja::KindOf(found), allowed);
}

ChatInput InputOf(const Value& one, const Variables& variables) {
  if (one.Map() == nullptr) Refuse("the case", one, "an object");
  ChatInput input{.variables = variables};
  const Value* messages = Member(one, "messages");
  if (messages == nullptr) Throw(ErrorKind::kInvalid, "messages is missing; it must be a list");
  if (messages->Seq() == nullptr) Refuse("messages", *messages, "a list");
  input.messages = messages->Seq()->items;
  if (const Value* tools = Member(one, "tools")) {
    if (tools->Seq() == nullptr) Refuse("tools", *tools, "a list");
    input.tools = *tools;
  }
  if (const Value* prompt = Member(one, "add_generation_prompt")) {
    if (prompt->Bool() == nullptr) Refuse("add_generation_prompt", *prompt, "true or false");
    input.add_generation_prompt = *prompt->Bool();
  }
  if (const Value* extra = Member(one, "extra")) AddVariables(*extra, "extra", input);
  return input;
}

Json Rendered(const ChatTemplate& chat_template, const Variables& variables, const Value& one,
              ChatOptions options) {
  try {
    const ChatInput input = InputOf(one, variables);
    if (const Value* now = Member(one, "now")) {
      if (now->Str() == nullptr) Refuse("now", *now, "a string");
      options.now = ParseTime(now->Str()->text());
    }
    return {{"text", JoinedText(chat_template.Render(input, options))}};
  } catch (const Error& error) {
    return {{"error", error.what()}};  // of this case alone
  }
}

// Reads a number of exactly `num_digits` digits at the begin of `text` and removes it.
int TakeNumber(std::string_view& text, size_t num_digits, bool& is_right) {
  int number = 0;
  for (size_t i = 0; i < num_digits; ++i) {
    const char c = i < text.size() ? text[i] : '\0';
    is_right = is_right && c >= '0' && c <= '9';
    number = number * 10 + (is_right ? c - '0' : 0);
  }
  text.remove_prefix(std::min(num_digits, text.size()));
  return number;
}

bool TakeSign(std::string_view& text, std::string_view signs) {
  const bool is_there = !text.empty() && signs.find(text[0]) != std::string_view::npos;
  if (is_there) text.remove_prefix(1);
  return is_there;
}

int DaysIn(int year, int month) {
  if (month == 2) return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) ? 29 : 28;
  return month == 4 || month == 6 || month == 9 || month == 11 ? 30 : 31;
}

}  // namespace

jinja::CivilTime ParseTime(const std::string& text) {
  std::string_view rest = text;
  bool is_right = true;
  jinja::CivilTime time;
  time.year = TakeNumber(rest, 4, is_right);
  is_right = is_right && TakeSign(rest, "-");
  time.month = TakeNumber(rest, 2, is_right);
  is_right = is_right && TakeSign(rest, "-");
  time.day = TakeNumber(rest, 2, is_right);
  if (is_right && TakeSign(rest, "T ")) {
    time.hour = TakeNumber(rest, 2, is_right);
    is_right = is_right && TakeSign(rest, ":");
    time.minute = TakeNumber(rest, 2, is_right);
    if (is_right && TakeSign(rest, ":")) {
      time.second = TakeNumber(rest, 2, is_right);
      if (is_right && TakeSign(rest, ".")) {
        const size_t num_digits = rest.size();
        is_right = num_digits > 0 && num_digits <= 6;
        time.microsecond = is_right ? TakeNumber(rest, num_digits, is_right) : 0;
        for (size_t i = num_digits; i < 6; ++i) time.microsecond *= 10;
      }
    }
  }
  is_right = is_right && rest.empty() && time.year >= 1 && time.month >= 1 && time.month <= 12 &&
             time.day >= 1 && time.day <= DaysIn(time.year, time.month) && time.hour < 24 &&
             time.minute < 60 && time.second < 60;
  if (!is_right)
    Throw(ErrorKind::kInvalid, "now is \"{}\"; it must be a time such as 2025-03-09T14:05:07",
          text.substr(0, 80));
  return time;
}

std::string RenderCases(const ChatTemplate& chat_template, const Variables& variables,
                        std::string_view document, const std::string& source,
                        const ChatOptions& options) {
  const Value cases = jinja::ParseJsonValue(document, source);
  if (cases.Seq() == nullptr)
    Throw(ErrorKind::kInvalid, "{}: the document is {}; it must be a list of conversations", source,
          jinja::KindOf(cases));
  Json results = Json::array();
  for (const Value& one : cases.Seq()->items)
    results.push_back(Rendered(chat_template, variables, one, options));
  return DumpJson(results) + "\n";
}

}  // namespace wideload::chat
