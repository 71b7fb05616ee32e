#include "base/json.h"

#include <gtest/gtest.h>

#include <functional>
#include <set>

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

TEST(ParseJson, TakesTimeInProportionToTheText) {
  std::string objects = "[{}";  // with a look through the parent at each end: hours
  for (int i = 0; i < 1'000'000; ++i) objects += ",{}";
  EXPECT_EQ(ParseJson(objects + "]", "f").size(), 1'000'001U);
  std::string members = "{\"a\":{}";
  for (int i = 0; i < 300'000; ++i) members += fmt::format(",\"{}\":{{\"x\":[]}}", i);
  EXPECT_EQ(ParseJson(members + "}", "f").size(), 300'001U);
}

TEST(ParseJson, KeepsValuesOfEveryKindInTheirPlaces) {
  const std::string text =
      R"([null,true,-3,18446744073709551615,1.5,"\u00e9",[],{},{"b":[1,{"a":2}],"c":3}])";
  EXPECT_EQ(
      DumpJson(ParseJson(text, "f")),
      "[null,true,-3,18446744073709551615,1.5,\"\u00e9\",[],{},{\"b\":[1,{\"a\":2}],\"c\":3}]");
  EXPECT_THROW(ParseJson("[1] 2", "f"), Error);
  EXPECT_THROW(ParseJson("[1e999]", "f"), Error);
  EXPECT_THROW(ParseJson("", "f"), Error);
  EXPECT_THROW(ParseJson("{\"a\":{\"b\":1,\"b\":2}}", "f"), Error);
  EXPECT_NO_THROW(ParseJson(std::string(100, '[') + std::string(100, ']'), "f"));
  EXPECT_THROW(ParseJson(std::string(101, '[') + std::string(101, ']'), "f"), Error);
}

// The members handed on, as "name=value ", then the document.
std::string Members(std::string_view text, std::string_view object) {
  std::string found;
  std::set<std::string> names;
  const Json rest =
      ParseJsonMembers(text, "f", object, [&](const std::string& name, const Json& value) {
        found += name + "=" + DumpJson(value) + " ";
        return names.insert(name).second;
      });
  return found + DumpJson(rest);
}

TEST(ParseJsonMembers, HandsOnTheMembersOfOneObject) {
  EXPECT_EQ(Members(R"({"b":[{"x":1}],"a":{"b":{}},"c":2})", ""),
            R"(b=[{"x":1}] a={"b":{}} c=2 {})");
  EXPECT_EQ(Members(R"({"m":{"m":1},"w":{"w":{"w":3},"v":[]},"z":{"w":{"q":1}}})", "w"),
            R"(w={"w":3} v=[] {"m":{"m":1},"w":{},"z":{"w":{"q":1}}})");
  EXPECT_EQ(Members(R"({"w":[{"w":1}]})", "w"), R"({"w":[{"w":1}]})");
  EXPECT_EQ(Members(R"([{"a":1}])", ""), R"([{"a":1}])");
  EXPECT_EQ(Members(R"([{"w":{"a":1}}])", "w"), R"([{"w":{"a":1}}])");
}

TEST(ParseJsonMembers, RefusesWhatParseJsonRefuses) {
  for (const char* text :
       {R"({"a":1,"a":2})", R"({"a":{"x":1,"x":2}})", R"({"a":1)", R"({"a":1}})"})
    EXPECT_THROW(Members(text, ""), Error) << text;
  for (const char* text :
       {R"({"w":{"a":1,"a":2}})", R"({"w":{},"w":{}})", R"({"v":1,"v":2,"w":{}})"})
    EXPECT_THROW(Members(text, "w"), Error) << text;
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
