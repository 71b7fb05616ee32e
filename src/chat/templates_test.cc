// Whole templates: what transformers and jinja2 render by them.
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>

#include "base/file.h"
#include "base/json.h"
#include "chat/template_cases.h"

namespace wideload::chat {
namespace {

// `folder` has templates/NAME.jinja and cases.json: conversations with the names of their templates
// and what is expected.
void ExpectCases(const std::string& folder, size_t min_cases, size_t min_templates) {
  const std::string text = ReadFile(folder + "/cases.json");
  const Json cases = ParseJson(text, "cases.json");
  std::map<std::string, Json> results;  // of all cases, by template
  for (size_t i = 0; i < cases.size(); ++i) {
    const auto name = cases[i]["template"].get<std::string>();
    if (!results.contains(name)) {
      const auto chat = ChatTemplate::FromFile(folder + "/templates/" + name + ".jinja");
      results[name] = ParseJson(RenderCases(chat, {}, text, "cases.json", {}), name);
    }
    const Json& found = results[name][i];
    const bool is_refused = cases[i].value("error", false);
    const std::string expected = is_refused ? "the template refuses the conversation: " +
                                                  cases[i]["message"].get<std::string>()
                                            : cases[i]["expected"].get<std::string>();
    const std::string shown = found.value(is_refused ? "error" : "text", DumpJson(found));
    EXPECT_TRUE(is_refused ? shown.ends_with(expected) : shown == expected)
        << cases[i]["name"] << "\n"
        << shown << "\nexpected\n"
        << expected;
  }
  EXPECT_GE(cases.size(), min_cases);
  EXPECT_GE(results.size(), min_templates);
}

std::string SourceFolder() {
  const char* source = std::getenv("WIDELOAD_SOURCE_DIR");
  return source ? source : ".";
}

TEST(Templates, PublishedOnesRenderAsTransformersDoes) {
  const char* shared = std::getenv("WIDELOAD_SHARED");
  const std::string folder =
      (shared ? shared : SourceFolder() + "/../shared") + "/models/chat-templates";
  if (!IsDirectory(folder)) GTEST_SKIP() << folder << " is not there; set WIDELOAD_SHARED";
  ExpectCases(folder, 379, 22);
}

TEST(Templates, OwnOnesRenderAsJinja2Does) {
  ExpectCases(SourceFolder() + "/testdata/chat", 56, 2);
}

}  // namespace
}  // namespace wideload::chat
