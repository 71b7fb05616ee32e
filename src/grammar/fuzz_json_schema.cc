// Schemas, as text or made of the input: refused or made a grammar; and then walks over the tokens
// of a small vocabulary: what is allowed is taken, something always is, and where the text may end
// it is JSON.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"
#include "grammar/testing.h"

namespace {

using namespace wideload;           // NOLINT(google-build-using-namespace): a program of one file
using namespace wideload::grammar;  // NOLINT(google-build-using-namespace)

// Takes the input apart; zeros follow its end.
class SchemaScript {
 public:
  explicit SchemaScript(std::string_view data) : data_(data) {}

  Json Schema(int depth) {
    Json schema = Json::object();
    const int num_keywords = Next(4) + 1;
    for (int i = 0; i < num_keywords; ++i) AddKeyword(schema, depth);
    if (depth == 0) schema["$defs"] = {{"a", Schema(1)}, {"b~/", Schema(1)}};
    return schema;
  }

 private:
  int Next(int limit) {
    const int byte = at_ < data_.size() ? static_cast<unsigned char>(data_[at_++]) : 0;
    return byte % limit;
  }
  template <class T>
  T Choose(std::initializer_list<T> values) {
    return values.begin()[Next(static_cast<int>(values.size()))];
  }
  Json Count() { return Choose<Json>({0, 1, 2, 5, 3.0, 40, 1025, -1, "x"}); }
  Json Bound() { return Choose<Json>({0, -1, 1, 9, 10, 2.5, 105, -1000, 1e15, 1e300, true}); }
  Json Value() {
    return Choose<Json>({nullptr, true, 1, 2.5, "", "a\"\n", "\xc3\xa9", Json::array({1, "b"}),
                         Json{{"k", Json::array()}}, 1e300, -3});
  }
  Json Reference() {
    return Choose<Json>({"#", "#/$defs/a", "#/$defs/b~0~1", "#/properties/a", "#/items",
                         "#/anyOf/0", "#/$defs/c", "x"});
  }
  Json Type() {
    return Choose<Json>({"object", "array", "string", "integer", "number", "boolean", "null",
                         Json::array({"string", "null"}), Json::array({"object", "integer"})});
  }
  Json Pattern() {
    return Choose<Json>({"^a+$", "b", "^[a-c\"]{2,3}", "(x|y)*$", "\\d+\\w?", "^.{3}", "[^a]",
                         "(?=a)", "a{0,70}", "(a|b|ab)*c", "\\u00e9", "["});
  }
  std::string Name() { return Choose<std::string>({"a", "ab", "b", "", "a\"", "\xc3\xa9", "abc"}); }

  Json SchemaBelow(int depth) {
    if (depth >= 4) return Json::object();
    return Next(6) == 0 ? Json(Next(2) == 0) : Schema(depth + 1);
  }
  Json Schemas(int depth) {
    Json list = Json::array();
    for (int i = Next(4); i >= 0; --i) list.push_back(SchemaBelow(depth));
    return list;
  }

  void AddKeyword(Json& schema, int depth) {
    static constexpr const char* kKeywords[] = {
        "type",      "type",      "properties",  "properties", "required",
        "items",     "minItems",  "maxItems",    "enum",       "const",
        "anyOf",     "oneOf",     "allOf",       "$ref",       "additionalProperties",
        "minLength", "maxLength", "pattern",     "format",     "minimum",
        "maximum",   "nullable",  "prefixItems", "title",      "not"};
    const std::string keyword = kKeywords[Next(std::size(kKeywords))];
    Json& value = schema[keyword];
    if (keyword == "type") value = Type();
    if (keyword == "properties")
      for (int i = Next(5); i > 0; --i) value[Name()] = SchemaBelow(depth);
    if (keyword == "required") value = Json::array({Name(), Name()});
    if (keyword == "enum") value = Json::array({Value(), Value(), Value()});
    if (keyword == "const") value = Value();
    if (keyword == "items" || keyword == "additionalProperties") value = SchemaBelow(depth);
    if (keyword == "anyOf" || keyword == "oneOf" || keyword == "prefixItems" || keyword == "allOf")
      value = Schemas(depth);
    if (keyword == "$ref") value = Reference();
    if (keyword.ends_with("Items") && !value.is_array()) value = Count();
    if (keyword.ends_with("Length")) value = Count();
    if (keyword.ends_with("imum")) value = Bound();
    if (keyword == "pattern") value = Pattern();
    if (keyword == "format") value = Choose<Json>({"date", "time", "uuid", "ipv4", "email", "x"});
    if (keyword == "nullable") value = Next(2) == 0;
  }

  std::string_view data_;
  size_t at_ = 0;
};

// The allowed token that comes first from `from` on, round the vocabulary; -1: none.
int32_t FirstAllowed(const TokenBits& bits, int32_t from) {
  const auto size = static_cast<int32_t>(SmallTrie()->vocab_size());
  for (int32_t i = 0; i < size; ++i)
    if (const int32_t token = (from + i) % size; IsAllowed(bits, token)) return token;
  return -1;
}

void Walk(const std::shared_ptr<TokenGrammar>& grammar, std::string_view choices) {
  TokenMatcher matcher(grammar);
  std::string text;
  for (int step = 0; step < 64; ++step) {
    if (matcher.IsEnd()) WIDELOAD_CHECK(Json::accept(text), "may end as {}", text);
    if (!matcher.GoesOn()) {
      WIDELOAD_CHECK(matcher.IsEnd(), "{} neither ends nor goes on", text);
      return;
    }
    const char byte = choices[static_cast<size_t>(step) % choices.size()];
    const int choice = static_cast<unsigned char>(byte) + step * 37;
    const int32_t token = FirstAllowed(*matcher.Allowed(), choice % 300);
    WIDELOAD_CHECK(token >= 0, "nothing may follow {}", text);
    WIDELOAD_CHECK(matcher.Advance(token), "{} is not taken after {}", token, text);
    text += SmallTrie()->BytesOf(token);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  if (input.empty()) return 0;
  const std::string schema =
      input.front() == '{' ? std::string(input) : DumpJson(SchemaScript(input).Schema(0));
  try {
    const auto grammar = std::make_shared<TokenGrammar>(GrammarOf(schema), SmallTrie());
    Walk(grammar, input);
    Walk(grammar, input.substr(input.size() / 2));
  } catch (const Error&) {
    // A refusal is a right answer.
  }
  return 0;
}
