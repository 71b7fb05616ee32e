// What jinja2 renders, by tools/template_cases.py. WIDELOAD_JINJA_CASES names another file of
// cases.
#include <gtest/gtest.h>

#include <cstdlib>

#include "base/error.h"
#include "base/file.h"
#include "jinja/json_value.h"
#include "jinja/template.h"

namespace wideload::jinja {
namespace {

struct Outcome {
  std::string text;
  bool is_refused = false;
  bool is_unsupported = false;
};

Outcome Render(const std::string& text,
               const std::vector<std::pair<std::string, Value>>& variables) {
  const RenderOptions options{
      .now = {.year = 2025, .month = 3, .day = 9, .hour = 14, .minute = 5, .second = 7}};
  try {
    return {.text = Template(text, "t.jinja").Render(variables, options).text()};
  } catch (const Error& error) {
    return {.text = error.what(),
            .is_refused = true,
            .is_unsupported = error.kind() == ErrorKind::kUnsupported};
  }
}

TEST(JinjaCases, RenderAsJinja2Does) {
  const char* source = std::getenv("WIDELOAD_SOURCE_DIR");
  const char* given = std::getenv("WIDELOAD_JINJA_CASES");
  const std::string path =
      given ? given : std::string(source ? source : ".") + "/testdata/jinja/cases.json";
  const Value document = ParseJsonValue(ReadFile(path), path);
  std::vector<std::pair<std::string, Value>> variables;
  for (const Dict::Entry& entry : document.Map()->Find("variables")->Map()->entries())
    variables.emplace_back(entry.key.Str()->text(), entry.value);
  const std::vector<Value>& cases = document.Map()->Find("cases")->Seq()->items;
  size_t num_unsupported = 0;
  for (const Value& one : cases) {
    const std::string& text = one.Seq()->items[0].Str()->text();
    const MarkedText* expected = one.Seq()->items[1].Str();  // null: jinja2 refuses
    const Outcome outcome = Render(text, variables);
    if (expected && outcome.is_unsupported) {
      ++num_unsupported;  // refused by name, though jinja2 has it
      continue;
    }
    EXPECT_EQ(outcome.is_refused, expected == nullptr) << text << "\n" << outcome.text;
    if (expected && !outcome.is_refused) {
      EXPECT_EQ(outcome.text, expected->text()) << text;
    }
  }
  EXPECT_GE(cases.size(), 1000u);
  EXPECT_LT(num_unsupported * 100, cases.size());
}

}  // namespace
}  // namespace wideload::jinja
