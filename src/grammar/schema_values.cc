#include "grammar/schema_values.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace wideload::grammar {
namespace {

using jinja::Value;

std::string_view TextOrNothing(const Value* value) {
  return value != nullptr && value->Str() != nullptr ? std::string_view(value->Str()->text())
                                                     : std::string_view();
}

bool IsNullable(const Value& schema) {
  const Value* nullable = MemberOf(schema, "nullable");
  return nullable != nullptr && IsTrue(*nullable);
}

// All values that a schema with const or enum allows; empty: it has neither, or allows more.
std::vector<const Value*> ListedValues(const Value& schema) {
  if (IsNullable(schema)) return {};
  if (const Value* one = MemberOf(schema, "const")) return {one};
  std::vector<const Value*> values;
  const Value* list = MemberOf(schema, "enum");
  if (list != nullptr && list->Seq() != nullptr)
    for (const Value& value : list->Seq()->items) values.push_back(&value);
  return values;
}

std::vector<std::string_view> ListedTypes(const Value& schema) {
  std::vector<std::string_view> types;
  for (const Value* value : ListedValues(schema)) types.push_back(TypeName(*value));
  if (!types.empty()) return types;
  const Value* type = MemberOf(schema, "type");
  if (type != nullptr && type->Str() != nullptr) types.push_back(TextOrNothing(type));
  if (type != nullptr && type->Seq() != nullptr)
    for (const Value& one : type->Seq()->items) types.push_back(TextOrNothing(&one));
  if (!types.empty() && IsNullable(schema)) types.emplace_back("null");
  return types;
}

}  // namespace

std::string Below(const std::string& pointer, std::string_view step) {
  std::string result = pointer + "/";
  for (const char c : step) {
    if (c == '~')
      result += "~0";
    else if (c == '/')
      result += "~1";
    else
      result += c;
  }
  return result;
}

std::string_view TypeName(const Value& value) {
  if (value.IsNone()) return "null";
  if (value.Bool() != nullptr) return "boolean";
  if (value.Int() != nullptr || value.Big() != nullptr) return "integer";
  if (value.Float() != nullptr)
    return *value.Float() == std::trunc(*value.Float()) ? "integer" : "number";
  if (value.Str() != nullptr) return "string";
  return value.Seq() != nullptr ? "array" : "object";
}

bool Disjointness::Requires(const Value& schema, std::string_view name) {
  const Value* required = MemberOf(schema, "required");
  if (required == nullptr || required->Seq() == nullptr) return false;
  num_steps_ += std::ssize(required->Seq()->items);
  return std::ranges::any_of(required->Seq()->items,
                             [&](const Value& one) { return TextOrNothing(&one) == name; });
}

bool Disjointness::HaveNoCommonValue(const Values& a, const Values& b) {
  return !a.empty() && !b.empty() && std::ranges::none_of(a, [&](const Value* x) {
    return std::ranges::any_of(b, [&](const Value* y) { return AreEqual(*x, *y); });
  });
}

// Beyond the steps all count as equal.
bool Disjointness::AreEqual(const Value& a, const Value& b) {
  if (++num_steps_ > kMaxSteps) return true;
  double x = 0, y = 0;
  const bool are_numbers =
      a.Bool() == nullptr && b.Bool() == nullptr && AsDouble(a, &x) && AsDouble(b, &y);
  if (are_numbers) return a.Int() && b.Int() ? *a.Int() == *b.Int() : x == y;
  if (TypeName(a) != TypeName(b)) return false;
  if (a.Bool() != nullptr) return *a.Bool() == *b.Bool();
  if (a.Big() != nullptr) return b.Big() != nullptr && a.Big()->digits == b.Big()->digits;
  if (a.Str() != nullptr) return a.Str()->text() == b.Str()->text();
  if (a.Seq() != nullptr)
    return std::ranges::equal(a.Seq()->items, b.Seq()->items,
                              [this](const Value& v, const Value& w) { return AreEqual(v, w); });
  if (a.Map() == nullptr) return true;
  const auto& entries = a.Map()->entries();
  return entries.size() == b.Map()->entries().size() &&
         std::ranges::all_of(entries, [&](const jinja::Dict::Entry& entry) {
           const Value* other = b.Map()->Find(entry.key);
           return other != nullptr && AreEqual(entry.value, *other);
         });
}

bool Disjointness::AreDisjoint(const Value& a, const Value& b) {
  const auto types_a = ListedTypes(a), types_b = ListedTypes(b);
  num_steps_ += 1 + std::ssize(types_a) * std::ssize(types_b);
  if (num_steps_ > kMaxSteps) return false;
  const bool share_type =
      types_a.empty() || types_b.empty() || std::ranges::any_of(types_a, [&](auto x) {
        return std::ranges::any_of(types_b,
                                   [&](auto y) { return IsOfType(x, y) || IsOfType(y, x); });
      });
  if (!share_type || HaveNoCommonValue(ListedValues(a), ListedValues(b))) return true;
  // Only objects are told apart by their properties.
  const auto is_object = [](const auto& types) {
    return types.size() == 1 && types.front() == "object";
  };
  const Value* properties = MemberOf(a, "properties");
  if (!is_object(types_a) || !is_object(types_b) || properties == nullptr ||
      properties->Map() == nullptr)
    return false;
  const Value* others = MemberOf(b, "properties");
  return std::ranges::any_of(properties->Map()->entries(), [&](const jinja::Dict::Entry& entry) {
    if (++num_steps_ > kMaxSteps) return false;
    const std::string_view name = TextOrNothing(&entry.key);
    const Value* other = others != nullptr ? MemberOf(*others, name) : nullptr;
    return other != nullptr && Requires(a, name) && Requires(b, name) &&
           HaveNoCommonValue(ListedValues(entry.value), ListedValues(*other));
  });
}

}  // namespace wideload::grammar
