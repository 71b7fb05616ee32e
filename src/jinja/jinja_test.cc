#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "base/error.h"
#include "base/testing.h"
#include "jinja/json_value.h"
#include "jinja/template.h"

namespace wideload::jinja {
namespace {

using testing::HasSubstr;

std::string Rendered(const std::string& text, const std::string& variables = "{}",
                     const RenderOptions& options = {}) {
  std::vector<std::pair<std::string, Value>> named;
  const Value given = ParseJsonValue(variables, "variables");
  for (const Dict::Entry& entry : given.Map()->entries())
    named.emplace_back(entry.key.Str()->text(), entry.value);
  return Template(text, "t.jinja").Render(named, options).text();
}

std::string MessageOf(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

std::string Repeated(const std::string& text, int times) {
  std::string result;
  for (int i = 0; i < times; ++i) result += text;
  return result;
}

TEST(Template, RefusesWhatItCannotReadWithItsLine) {
  for (const auto& [text, message] : std::vector<std::pair<std::string, std::string>>{
           {"a\n{% include 'x' %}", "line 2: the statement \"include\" is not supported"},
           {"{{ x | urlize }}", "line 1: the filter urlize is not supported"},
           {"{{ x is odd_one }}", "line 1: the test odd_one is not supported"},
           {"{{ x is defined is none }}", "tests cannot be chained"},
           {"{{ x +}}", "the end of the tag is not expected here"},
           {"{{ 99999999999999999999 }}", "99999999999999999999 is beyond 64 bits"},
           {"{{ '\\N{DASH}' }}", "the escape \\N is not supported"},
           {"{% if x %}", "line 1: a block without its endif"},
           {"{% for a in x %}", "a block without its endfor"},
           {"{% endif %}", "\"endif\" without its begin"},
           {"{% break %}", "\"break\" outside of a loop"},
           {"{% for a in x %}{% macro f() %}{% continue %}{% endmacro %}{% endfor %}",
            "\"continue\" outside of a loop"},
           {"{% for loop in x %}{% endfor %}", "\"loop\" cannot be the variable of a for"},
           {"{% set none = 1 %}", "\"none\" cannot be set"},
           {"{% macro f(a=1, b) %}{% endmacro %}", "a parameter without default after one with"},
           {"{% call x %}{% endcall %}", "a call block must call something"},
           {"{{ f(a=1, 2) }}", "arguments in an order that is not allowed"},
           {"{{ 'a", "a string without closing quote"},
           {"{{ a", "the template ends within a tag"},
           {"{{ (a] }}", "\"]\" closes nothing that is open"},
           {"{# a", "a comment {# without #}"},
           {"{% raw %}a", "{% raw %} without {% endraw %}"},
           {"\xFF", "not valid UTF-8"},
           {std::string(100, '\n') + "{{ ! }}", "line 101: \"!\" is not supported here"},
           {"{{ " + std::string(1000, '(') + std::string(1000, ')') + " }}",
            "nesting deeper than 100"},
           {Repeated("{% if x %}", 1000), "nesting deeper than 100"},
           {"{{ a" + Repeated("+a", 1000) + " }}", "an expression of depth over 256"}}) {
    EXPECT_THAT(MessageOf([&] { Template(text, "t.jinja"); }), HasSubstr(message)) << text;
  }
  EXPECT_THAT(MessageOf([] { Template(std::string(1 << 21, 'a'), "t.jinja"); }),
              HasSubstr("has 2097152 bytes; at most 1048576 are supported"));
}

TEST(Template, RefusesValuesItCannotWorkWithWithTheirLine) {
  for (const auto& [text, message] : std::vector<std::pair<std::string, std::string>>{
           {"\n{{ 'a' + 1 }}", "line 2: a string + an integer"},
           {"{{ x + 'a' }}", "line 1: undefined (x) + a string"},
           {"{{ x.y }}", "\"y\" of undefined (x)"},
           {"{{ [1].append(2) }}", "calling undefined (append, which would change a list)"},
           {"{{ 'a'.encode() }}", "\"encode\" of a string is not supported"},
           {"{% for a, b in [[1]] %}{% endfor %}", "1 values for 2 names"},
           {"{{ 1 % 0 }}", "a division by zero"},
           {"{{ 1 in 2 }}", "an integer in an integer"},
           {"{{ 1 < 'a' }}", "an integer and a string have no order"},
           {"{{ 9223372036854775807 + 1 }}", "an integer beyond 64 bits is not supported"},
           {"{{ range(100001) }}", "a range of more than 100000 numbers"},
           {"{{ {[]: 1} }}", "a list as a key of a mapping"},
           {"{{ x | tojson }}", "tojson of undefined (x)"},
           {"{% macro f(a) %}{% endmacro %}{{ f(1, 2) }}", "the macro f takes at most 1 arguments"},
           {"{% macro f(a) %}{% endmacro %}{{ f(b=2) }}", "the macro f has no argument b"},
           {"{{ 'a' | replace('b') }}", "replace needs the argument new"},
           {"{{ 'a' | trim(z=1) }}", "trim has no argument z"},
           {"{{ strftime_now('%Q') }}", "the conversion %Q of strftime_now() is not supported"},
           {"{% if true %}{{ 1 | nothing }}{% endif %}", "the filter nothing is not supported"},
           {"{{ raise_exception('no ' ~ 1) }}", "the template refuses the conversation: no 1"}}) {
    EXPECT_THAT(MessageOf([&] { Rendered(text); }), HasSubstr("t.jinja: line ")) << text;
    EXPECT_THAT(MessageOf([&] { Rendered(text); }), HasSubstr(message)) << text;
  }
  EXPECT_THAT(MessageOf([] { Rendered("{{ n + 1 }}", R"({"n": 18446744073709551616})"); }),
              HasSubstr("computing with an integer beyond 64 bits is not supported"));
}

// A copy of a string costs nothing, whatever its size; what makes or reads bytes is counted.
TEST(Template, StepsBytesAndDepthAreBounded) {
  const TimeLimit limit;
  const std::string doubled = "{% set a = 'xxxxxxxx' %}" + Repeated("{% set a = a + a %}", 22);
  EXPECT_EQ(Rendered(doubled + Repeated("{% if a %}{% endif %}", 1000) + "{{ a | length }}"),
            "33554432");
  EXPECT_THAT(
      MessageOf([&] { Rendered(doubled + Repeated("{% if a == a ~ '' %}{% endif %}", 9)); }),
      HasSubstr("rendering moved more than 268435456 bytes"));
  const std::string loops = "{% set r = range(1000) %}" + Repeated("{% for i in r %}", 4);
  EXPECT_THAT(MessageOf([&] { Rendered(loops + Repeated("{% endfor %}", 4)); }),
              HasSubstr("rendering took more than 20000000 steps"));
  EXPECT_THAT(MessageOf([] { Rendered("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"); }),
              HasSubstr("rendering went deeper than 1000 levels"));
  const std::string nest =
      "{% set ns = namespace(a=[]) %}{% for i in range(300) %}{% set ns.a = [ns.a] %}{% endfor %}";
  EXPECT_THAT(MessageOf([&] { Rendered(nest); }), HasSubstr("nested deeper than 200"));
  EXPECT_THAT(MessageOf([] { Rendered("{{ 'ab' * 200000000 }}"); }),
              HasSubstr("rendering moved more than"));
  // A pattern that nearly matches everywhere is looked for in linear time.
  EXPECT_EQ(Rendered("{% set x = 'a' * 8000000 %}{% set y = 'a' * 4000000 ~ 'b' %}{{ y in x }}"
                     "{{ x.rfind('b' ~ 'a' * 4000000) }}{{ x.rsplit(y) | length }}"),
            "False-11");
  EXPECT_THAT(MessageOf([] { Rendered("{{ '%9999999999d' % 1 }}"); }),
              HasSubstr("a width or precision over 10000 is not supported"));
  // Lists of shared lists are small, their text is not.
  const std::string shared =
      "{% set ns = namespace(a=['x'], b=['x']) %}{% for i in range(60) %}"
      "{% set ns.a = [ns.a, ns.a] %}{% set ns.b = [ns.b, ns.b] %}{% endfor %}";
  for (const std::string use : {"{{ ns.a }}", "{{ ns.a | tojson }}", "{{ ns.a == ns.b }}"})
    EXPECT_NE(MessageOf([&] { Rendered(shared + use, "{}", {.limits = {.max_steps = 100'000}}); }),
              "no error")
        << use;
}

TEST(Template, AMacroOutlivesTheScopeThatItSees) {
  EXPECT_EQ(Rendered("{% set ns = namespace() %}{% for i in range(3) %}{% set ns.last = loop %}"
                     "{% macro m() %}{{ i }}{% endmacro %}{% set ns.m = m %}{% endfor %}"
                     "{{ ns.m() }}{{ ns.last.index }}{{ ns.last.last }}"),
            "23True");
  // A namespace may hold itself.
  EXPECT_EQ(Rendered("{% set n = namespace(a=1) %}{% set n.n = n %}{{ n.n.n.a }}{{ n == n.n }}"),
            "1True");
}

TEST(ParseJsonValue, KeepsOrderAndIntegers) {
  EXPECT_EQ(
      Rendered("{{ v | tojson }}", R"({"v": {"b": 18446744073709551616, "a": [-0.0, 1e22,
                     9007199254740993, "\u2028<", {}], "": null}})"),
      "{\"b\": 18446744073709551616, \"a\": [-0.0, 1e+22, 9007199254740993, \"\u2028<\", {}], "
      "\"\": null}");
  EXPECT_THAT(MessageOf([] { ParseJsonValue("{\"a\": 1, \"a\": 2}", "f.json"); }),
              HasSubstr("f.json: duplicate JSON key \"a\""));
  EXPECT_THAT(MessageOf([] { ParseJsonValue(std::string(101, '['), "f.json"); }),
              HasSubstr("f.json: JSON is nested deeper than 100"));
  EXPECT_THAT(MessageOf([] { ParseJsonValue("[1,", "f.json"); }),
              HasSubstr("f.json: not valid JSON"));
}

}  // namespace
}  // namespace wideload::jinja
