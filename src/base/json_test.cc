#include "base/json.h"

#include <gtest/gtest.h>

#include <functional>
#include <set>

#include "base/testing.h"

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

TEST(ParseJson, SaysWhereTheTextIsWrongAndWhatIsExpected) {
  const auto message = [](const std::string& text) {
    return MessageOf([&] { ParseJson(text, "c.json"); });
  };
  const std::string at = "c.json: not valid JSON at line ";
  const std::string value = "a value: {, [, a string in double quotes, a number, true, false, null";
  EXPECT_EQ(message(""), "c.json: not valid JSON: the text is empty");
  EXPECT_EQ(message(" \n"), "c.json: not valid JSON: the text is empty");
  EXPECT_EQ(message("{\n  \"a\": 1"),
            at + "2, column 9: found the end of the text; expected ',' or '}' after a member");
  EXPECT_EQ(message("{\"a\": }"), at + "1, column 7: found \"}\"; expected " + value);
  EXPECT_EQ(message("{\"a\": True}"), at + "1, column 7: found \"True\"; expected " + value);
  EXPECT_EQ(message("[1, NaN]"), at + "1, column 5: found \"NaN\"; expected " + value);
  EXPECT_EQ(message("{'a': 1}"), at + "1, column 2: found \"'\"; expected a key in double quotes");
  EXPECT_EQ(message("{\"a\": 1,}"),
            at + "1, column 9: found \"}\"; expected a key in double quotes");
  EXPECT_EQ(message("{\"a\" 12}"), at + "1, column 6: found \"12\"; expected ':' after a key");
  EXPECT_EQ(message("[1 2]"),
            at + "1, column 4: found \"2\"; expected ',' or ']' after an element");
  EXPECT_EQ(message("{} x"), at + "1, column 4: found \"x\"; expected nothing after the document");
  EXPECT_EQ(message("[1e999]"),
            at + "1, column 2: found \"1e999\"; expected a number that 64 bits hold");
  EXPECT_EQ(message("[\"a\nb\"]"),
            at + "1, column 4: found \"\\n\"; expected control characters in a string written as "
                 "\\n or \\u000a");
  EXPECT_EQ(message("[-]"),
            at + "1, column 3: found \"]\"; expected a number as JSON writes it: 12, -0.5, 1e-6");
  EXPECT_EQ(message("[\"\xff\"]"),
            at + "1, column 3: found the byte 0xff; expected a string in UTF-8");
  EXPECT_EQ(message("[\"a"),
            at + "1, column 4: found the end of the text; expected a string that ends with a "
                 "double quote");
  EXPECT_EQ(message("\xff\xfe{"), at + "1, column 1: found the byte 0xff; expected " + value);
}

TEST(ParseJson, TakesTimeInProportionToTheText) {
  const TimeLimit limit;
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
