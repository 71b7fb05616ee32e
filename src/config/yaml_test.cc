#include "config/yaml.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace wideload::config {
namespace {

using ::testing::HasSubstr;
using Kind = YamlSetting::Kind;

std::string YamlRefusal(std::string_view text) {
  try {
    ParseYamlSettings(text, "a.yaml");
    return "";
  } catch (const Error& e) {
    return e.what();
  }
}

TEST(ParseYamlSettings, JoinsTheKeysOfMapsAndTellsTheLine) {
  const auto settings = ParseYamlSettings(
      "a: 1\nb:\n  c: 'x y'\n  d: [1, [2, {e: 3}]]\nf: {g: ~, h: {}}\ni:\nj: 'null'\n", "a.yaml");
  ASSERT_EQ(settings.size(), 7u);
  const auto expect = [&](size_t i, const char* key, const char* text, Kind kind, int line) {
    EXPECT_EQ(settings[i].key, key);
    EXPECT_EQ(settings[i].text, text);
    EXPECT_EQ(settings[i].kind, kind) << key;
    EXPECT_EQ(settings[i].line, line) << key;
  };
  expect(0, "a", "1", Kind::kScalar, 1);
  expect(1, "b.c", "x y", Kind::kScalar, 3);
  expect(2, "b.d", "[1, [2, {e, 3}]]", Kind::kList, 4);
  expect(3, "f.g", "", Kind::kNull, 5);
  expect(4, "f.h", "", Kind::kEmptyMap, 5);
  expect(5, "i", "", Kind::kNull, 6);
  expect(6, "j", "null", Kind::kScalar, 7);
}

TEST(ParseYamlSettings, TakesAnEmptyDocument) {
  for (const char* text : {"", "---\n", "# nothing\n", "{}", "~"})
    EXPECT_TRUE(ParseYamlSettings(text, "a.yaml").empty()) << text;
}

TEST(ParseYamlSettings, RefusesDuplicatesWithBothLines) {
  EXPECT_EQ(YamlRefusal("a: {b: 1}\nc: 2\na: {d: 3}\n"),
            "a.yaml:3: duplicate key \"a\"; it is already set in line 1");
  EXPECT_THAT(YamlRefusal("a:\n  b: 1\n  b: 2\n"), HasSubstr("duplicate key \"a.b\""));
  EXPECT_THAT(YamlRefusal("a.b: 1\n"), HasSubstr("no key holds a dot"));
}

TEST(ParseYamlSettings, RefusesWhatIsNoMapOfSettings) {
  EXPECT_THAT(YamlRefusal("- 1\n"), HasSubstr("found a list"));
  EXPECT_THAT(YamlRefusal("word\n"), HasSubstr("found \"word\""));
  EXPECT_THAT(YamlRefusal("a: 1\n---\nb: 2\n"), HasSubstr("more than one document"));
  EXPECT_THAT(YamlRefusal("a: &x 1\nb: *x\n"), HasSubstr("anchor"));
  EXPECT_THAT(YamlRefusal("a: !!int 1\n"), HasSubstr("tag"));
  EXPECT_THAT(YamlRefusal("? [1]\n: 2\n"), HasSubstr("no key"));
  EXPECT_THAT(YamlRefusal("? {a: 1}\n: 2\n"), HasSubstr("no key"));
  EXPECT_THAT(YamlRefusal("a: [1\n"), HasSubstr("not YAML"));
  EXPECT_THAT(YamlRefusal("a: b: c\n"), HasSubstr("not YAML"));
}

TEST(ParseYamlSettings, BoundsSizeLevelsAndValues) {
  EXPECT_THAT(YamlRefusal("a: " + std::string(1 << 20, 'x')), HasSubstr("bytes; at most"));
  EXPECT_THAT(YamlRefusal("a: " + std::string(100'000, '[')), HasSubstr("more than 16 levels"));
  std::string deep, many;
  for (int i = 0; i < 17; ++i) deep += std::string(static_cast<size_t>(i), ' ') + "a:\n";
  EXPECT_THAT(YamlRefusal(deep + std::string(20, ' ') + "b: 1"), HasSubstr("more than 16 levels"));
  for (int i = 0; i < 20'001; ++i) many += fmt::format("k{}: 1\n", i);
  EXPECT_THAT(YamlRefusal(std::string(201, 'k') + ": 1"), HasSubstr("a key of 201 letters"));
  EXPECT_THAT(YamlRefusal("\"\": {a: 1}"), HasSubstr("a key of 0 letters"));
  EXPECT_THAT(YamlRefusal(many), HasSubstr("more than 20000 values"));
}

}  // namespace
}  // namespace wideload::config
