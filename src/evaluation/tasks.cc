#include "evaluation/tasks.h"

#include <algorithm>
#include <functional>

#include "base/error.h"
#include "base/json.h"

namespace wideload::evaluation {
namespace {

constexpr size_t kMaxChoices = 1000;

// Calls take(fields) for each line that is not blank.
void ForEachLine(std::string_view content, const std::string& source,
                 const std::function<void(const JsonFields&)>& take) {
  bool has_rows = false;
  for (int64_t number = 1; !content.empty(); ++number) {
    const std::string_view line = content.substr(0, content.find('\n'));
    content.remove_prefix(std::min(line.size() + 1, content.size()));
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string place = fmt::format("{} line {}", source, number);
    const Json json = ParseJson(line, place);
    take(JsonFields(json, place));
    has_rows = true;
  }
  if (!has_rows) Throw(ErrorKind::kInvalid, "{}: has no rows; at least one is needed", source);
}

}  // namespace

std::vector<std::string> ParseDocuments(std::string_view content, const std::string& source) {
  std::vector<std::string> documents;
  ForEachLine(content, source, [&](const JsonFields& fields) {
    documents.push_back(fields.String("text"));
    if (documents.back().empty()) fields.Refuse("text", "a text that is not empty");
  });
  return documents;
}

std::vector<Question> ParseQuestions(std::string_view content, const std::string& source) {
  std::vector<Question> questions;
  ForEachLine(content, source, [&](const JsonFields& fields) {
    Question question{.context = fields.String("context")};
    const Json& choices = fields.Required("choices");
    const std::string allowed =
        fmt::format("a list of 2 to {} texts that are not empty", kMaxChoices);
    if (!choices.is_array() || choices.size() < 2 || choices.size() > kMaxChoices)
      fields.Refuse("choices", allowed);
    for (const Json& choice : choices) {
      if (!choice.is_string() || choice.get_ref<const std::string&>().empty())
        fields.Refuse("choices", allowed);
      question.choices.push_back(choice.get<std::string>());
    }
    question.gold = static_cast<size_t>(fields.Int("gold", 0, std::ssize(choices) - 1));
    questions.push_back(std::move(question));
  });
  return questions;
}

}  // namespace wideload::evaluation
