// The types of a schema, keyword by keyword.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "grammar/json_schema.h"
#include "grammar/pattern.h"
#include "grammar/schema_values.h"

namespace wideload::grammar {
namespace {

using jinja::Dict;
using jinja::Value;

constexpr int64_t kLargestInteger = 999'999'999'999'999'999;  // of JsonRules::kMaxDigits digits
constexpr std::string_view kFormats = "date, time, date-time, uuid, ipv4, email";

constexpr std::string_view kDate =
    R"((?:[12]\d{3}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)|)"
    R"(02-(?:0[1-9]|1\d|2[0-8]))))";
constexpr std::string_view kTime =
    R"((?:(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,9})?(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)))";

// Of RFC 3339, 4122, 2673 and, of 5321, the addresses without quotes and comments. 29 February is
// left out: whether it is a day depends on the year. "": not known.
std::string PatternOfFormat(std::string_view format) {
  if (format == "date") return std::string(kDate);
  if (format == "time") return std::string(kTime);
  if (format == "date-time") return fmt::format("{}T{}", kDate, kTime);
  if (format == "uuid") return "[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}";
  if (format == "ipv4")
    return R"((?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)\.){3}(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d))";
  if (format == "email")
    return R"([A-Za-z0-9_%+-]+(?:\.[A-Za-z0-9_%+-]+)*@)"
           R"((?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.)+[A-Za-z]{2,63})";
  return "";
}

}  // namespace

uint32_t SchemaReader::CountOf(const Dict& schema, std::string_view keyword, uint32_t fallback,
                               const std::string& pointer) const {
  const Value* value = schema.Find(keyword);
  if (value == nullptr) return fallback;
  double count = 0;
  const std::string at = Below(pointer, keyword);
  if (value->Bool() != nullptr || !AsDouble(*value, &count) || count < 0 ||
      count != std::trunc(count))
    Refuse(at, "is no count");
  if (count > kMaxCount)
    Refuse(at, fmt::format("is {}; at most {} is supported", count, kMaxCount));
  return static_cast<uint32_t>(count);
}

void SchemaReader::CheckCount(size_t count, const std::string& pointer) const {
  if (count > kMaxProperties)
    Refuse(pointer, fmt::format("has {} members; at most {} are supported", count, kMaxProperties));
}

SchemaReader::Members SchemaReader::MembersOf(const Dict& schema,
                                              const std::string& pointer) const {
  Members members;
  const Value* properties = schema.Find("properties");
  const std::string at = Below(pointer, "properties");
  if (properties != nullptr) {
    if (properties->Map() == nullptr) Refuse(at, "is no object");
    CheckCount(properties->Map()->entries().size(), at);
    for (const Dict::Entry& entry : properties->Map()->entries()) {
      const std::string& name = entry.key.Str()->text();
      members.listed.push_back({.name = name, .schema = &entry.value, .pointer = Below(at, name)});
    }
  }
  const Value* others = schema.Find("additionalProperties");
  const Value* unevaluated = schema.Find("unevaluatedProperties");
  if (unevaluated != nullptr && unevaluated->Bool() == nullptr)
    Refuse(Below(pointer, "unevaluatedProperties"), "is no boolean; others are not supported");
  // An object of which nothing is said is any object.
  const bool is_said = properties != nullptr || others != nullptr || unevaluated != nullptr;
  members.has_others = !is_said || (others != nullptr && !(others->Bool() && !*others->Bool()));
  if (others != nullptr && others->Bool() == nullptr) members.others = others;
  const Value* required = schema.Find("required");
  if (required != nullptr) {
    const std::string place = Below(pointer, "required");
    if (required->Seq() == nullptr) Refuse(place, "is no list");
    CheckCount(required->Seq()->items.size(), place);
    for (const Value& item : required->Seq()->items) {
      if (item.Str() == nullptr) Refuse(place, "has an item that is no text");
      const std::string& name = item.Str()->text();
      auto found = std::ranges::find(members.listed, name, &Member::name);
      if (found == members.listed.end()) {
        if (others != nullptr && !members.has_others)
          Refuse(place, fmt::format("has \"{}\", which properties and additionalProperties do not "
                                    "allow",
                                    name.substr(0, 64)));
        members.listed.push_back({.name = name,
                                  .schema = members.others,
                                  .pointer = Below(pointer, "additionalProperties")});
        found = std::prev(members.listed.end());
      }
      found->is_required = true;
    }
  }
  CheckCount(members.listed.size(), pointer);
  for (const Member& member : members.listed)
    if (member.name.size() > kMaxNameBytes)
      Refuse(at, fmt::format("has a name of {} bytes; at most {} are supported", member.name.size(),
                             kMaxNameBytes));
  return members;
}

ExpressionId SchemaReader::ObjectOf(const Dict& schema, const std::string& pointer) {
  const Members members = MembersOf(schema, pointer);
  if (members.listed.empty() && members.has_others && members.others == nullptr)
    return builder_.Call(rules_.AnyObject());
  GrammarBuilder::List list{.items = {}, .separator = rules_.Comma()};
  std::vector<std::string> names;
  for (const Member& member : members.listed) {
    const ExpressionId value = CallOf(member.schema, member.pointer);
    list.items.push_back(
        {.part = rules_.Member(member.name, value), .is_optional = !member.is_required});
    names.push_back(member.name);
  }
  if (members.has_others) {
    const ExpressionId value = CallOf(members.others, Below(pointer, "additionalProperties"));
    list.tail = rules_.OtherMember(names, value);
  }
  return rules_.Object(std::move(list));
}

ExpressionId SchemaReader::ArrayOf(const Dict& schema, const std::string& pointer) {
  const uint32_t min = CountOf(schema, "minItems", 0, pointer);
  const bool has_max = schema.Find("maxItems") != nullptr;
  const uint32_t max = CountOf(schema, "maxItems", GrammarBuilder::kUnbounded, pointer);
  if (max < min) Refuse(Below(pointer, "maxItems"), "is below minItems");
  const Value* unique = schema.Find("uniqueItems");
  if (unique != nullptr && IsTrue(*unique) && (!has_max || max > 1))
    Refuse(Below(pointer, "uniqueItems"), "is not supported but as false");
  const Value* items = schema.Find("items");
  const std::string at = Below(pointer, "items");
  if (items != nullptr && items->Seq() != nullptr) Refuse(at, "is a list; use prefixItems");
  const bool has_items = items == nullptr || items->Bool() == nullptr || *items->Bool();
  if (const Value* prefix = schema.Find("prefixItems"); prefix != nullptr) {
    const std::string place = Below(pointer, "prefixItems");
    if (prefix->Seq() == nullptr) Refuse(place, "is no list of schemas");
    const auto count =
        static_cast<uint32_t>(std::min<size_t>(prefix->Seq()->items.size(), 1 << 20));
    // No more and no fewer: of the arrays that are allowed those which have them all.
    if (count < min || (has_max && count > max) || count > kMaxCount)
      Refuse(place,
             fmt::format("has {} schemas, which does not fit minItems and maxItems, or the {} "
                         "that are supported",
                         count, kMaxCount));
    GrammarBuilder::List list{.items = {}, .separator = rules_.Comma()};
    for (uint32_t i = 0; i < count; ++i)
      list.items.push_back({CallOf(&prefix->Seq()->items[i], Below(place, std::to_string(i)))});
    return rules_.Array(builder_.Separated(std::move(list)));
  }
  if (max == 0 || !has_items) {
    if (min > 0) Refuse(at, "allows fewer items than minItems");
    return rules_.Array(builder_.Empty());
  }
  const ExpressionId item = CallOf(items, at);
  const ExpressionId more =
      builder_.Repeat(builder_.Row({rules_.Comma(), item}), min > 0 ? min - 1 : 0,
                      max == GrammarBuilder::kUnbounded ? max : max - 1);
  const ExpressionId all = builder_.Row({item, more});
  return rules_.Array(min > 0 ? all : builder_.Optional(all));
}

ExpressionId SchemaReader::TextOf(const Dict& schema, const std::string& pointer) {
  const bool has_length =
      schema.Find("minLength") != nullptr || schema.Find("maxLength") != nullptr;
  const Value* pattern = schema.Find("pattern");
  const Value* format = schema.Find("format");
  if (pattern == nullptr && format == nullptr && !has_length)
    return builder_.Call(rules_.AnyText());
  if (has_length ? pattern != nullptr || format != nullptr : pattern && format)
    Refuse(pointer,
           "has more than one of pattern, format, and minLength or maxLength; one is "
           "supported");
  const ExpressionId quote = builder_.Bytes("\"");
  if (has_length) {
    const uint32_t min = CountOf(schema, "minLength", 0, pointer);
    const uint32_t max = CountOf(schema, "maxLength", GrammarBuilder::kUnbounded, pointer);
    if (max < min) Refuse(Below(pointer, "maxLength"), "is below minLength");
    return builder_.Row(
        {quote, builder_.Repeat(builder_.Call(rules_.Character()), min, max), quote});
  }
  const std::string_view keyword = pattern != nullptr ? "pattern" : "format";
  const Value& value = pattern != nullptr ? *pattern : *format;
  const std::string at = Below(pointer, keyword);
  if (value.Str() == nullptr) Refuse(at, "is no text");
  std::string expression = value.Str()->text();
  if (pattern == nullptr) {
    expression = PatternOfFormat(expression);
    if (expression.empty()) Refuse(at, fmt::format("is not supported; supported are {}", kFormats));
  }
  const WriteCharacter write = [this](const tokenizer::CodePointSet& set) {
    return rules_.Characters(set);
  };
  return builder_.Row(
      {quote,
       PatternExpression(expression, where_ + ": " + at, pattern != nullptr, builder_, write),
       quote});
}

std::optional<double> SchemaReader::BoundOf(const Dict& schema, std::string_view keyword,
                                            const std::string& pointer) const {
  const Value* value = schema.Find(keyword);
  if (value == nullptr) return std::nullopt;
  // Beyond 64 bits: like a number with a point.
  if (const jinja::BigInteger* big = value->Big()) return std::strtod(big->digits.c_str(), nullptr);
  double number = 0;
  // Booleans are of older drafts.
  if (value->Bool() != nullptr || !AsDouble(*value, &number) || !std::isfinite(number))
    Refuse(Below(pointer, keyword), "is no number");
  return number;
}

ExpressionId SchemaReader::IntegerOf(const Dict& schema, const std::string& pointer) {
  const auto limit = static_cast<double>(kLargestInteger);
  double least = -limit, most = limit;
  bool is_bounded = false;
  const auto bound = [&](std::string_view keyword, auto take) {
    if (const std::optional<double> value = BoundOf(schema, keyword, pointer)) {
      is_bounded = true;
      take(*value);
    }
  };
  bound("minimum", [&](double value) { least = std::max(least, std::ceil(value)); });
  bound("maximum", [&](double value) { most = std::min(most, std::floor(value)); });
  bound("exclusiveMinimum", [&](double value) { least = std::max(least, std::floor(value) + 1); });
  bound("exclusiveMaximum", [&](double value) { most = std::min(most, std::ceil(value) - 1); });
  if (!is_bounded) return builder_.Call(rules_.Integer());
  // Above 2^53 a double is not every integer.
  constexpr double kExact = 9007199254740992.0;
  if ((std::abs(least) > kExact && least > -limit) || (std::abs(most) > kExact && most < limit))
    Refuse(pointer, "has a bound beyond 2^53, which is not supported");
  if (least > most) Refuse(pointer, "has bounds between which there is no integer");
  return rules_.IntegersOf(least <= -limit ? -kLargestInteger : static_cast<int64_t>(least),
                           most >= limit ? kLargestInteger : static_cast<int64_t>(most));
}

ExpressionId SchemaReader::NumberOf(const Dict& schema, const std::string& pointer) {
  for (const std::string_view keyword : {"maximum", "exclusiveMinimum", "exclusiveMaximum"})
    if (schema.Find(keyword) != nullptr)
      Refuse(Below(pointer, keyword), "is supported of integers only");
  const std::optional<double> least = BoundOf(schema, "minimum", pointer);
  if (!least) return builder_.Call(rules_.Number());
  if (*least != 0) Refuse(Below(pointer, "minimum"), "is supported of integers only, but for 0");
  return builder_.Call(rules_.PositiveNumber());
}

}  // namespace wideload::grammar
