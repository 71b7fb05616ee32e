#include "base/json.h"

#include <gtest/gtest.h>

namespace wideload {
namespace {

std::string MessageOf(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

TEST(ParseJson, RefusesDuplicateKeysDepthAndGarbage) {
  EXPECT_EQ(ParseJson(R"({"a": {"b": 1}, "b": 2})", "f")["b"], 2);
  EXPECT_THROW(ParseJson(R"({"a": 1, "a": 2})", "f"), Error);
  EXPECT_THROW(ParseJson(R"({"a": )", "f"), Error);
  EXPECT_THROW(ParseJson(std::string(200, '[') + std::string(200, ']'), "f"), Error);
}

TEST(JsonFields, NamesFileFieldFoundAndAllowed) {
  const Json json = ParseJson(R"({"a": {"n": -3, "s": "x"}})", "config.json");
  const JsonFields fields = JsonFields(json, "config.json").Object("a");
  EXPECT_EQ(MessageOf([&] { fields.Int("n", 0, 9); }),
            "config.json: a.n is -3; it must be an integer in [0, 9]");
  EXPECT_EQ(MessageOf([&] { fields.Int("s", 0, 9); }),
            "config.json: a.s is \"x\"; it must be an integer in [0, 9]");
  EXPECT_EQ(MessageOf([&] { fields.Number("none", 0, 1); }),
            "config.json: a.none is missing; it must be a number in [0, 1]");
  EXPECT_EQ(fields.IntOr("none", 7, 0, 9), 7);
}

}  // namespace
}  // namespace wideload
