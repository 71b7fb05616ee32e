// What transformers renders by templates published with models.
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>

#include "base/file.h"
#include "base/json.h"
#include "chat/template_cases.h"

namespace wideload::chat {
namespace {

TEST(PublishedTemplates, RenderAsTransformersDoes) {
  const char* shared = std::getenv("WIDELOAD_SHARED");
  const char* source = std::getenv("WIDELOAD_SOURCE_DIR");
  const std::string root = source ? source : ".";
  const std::string folder = (shared ? shared : root + "/../shared") + "/models/chat-templates";
  if (!IsDirectory(folder)) GTEST_SKIP() << folder << " is not there; set WIDELOAD_SHARED";
  const std::string text = ReadFile(folder + "/cases.json");
  const Json cases = ParseJson(text, "cases.json");
  std::map<std::string, Json> results;  // of all cases, by template
  size_t num_equal = 0;
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
    const bool is_equal = is_refused ? shown.ends_with(expected) : shown == expected;
    EXPECT_TRUE(is_equal) << cases[i]["name"] << "\n" << shown << "\nexpected\n" << expected;
    num_equal += is_equal ? 1 : 0;
  }
  EXPECT_GE(num_equal, 379u);
  EXPECT_GE(results.size(), 22u);
}

}  // namespace
}  // namespace wideload::chat
