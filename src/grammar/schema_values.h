// Values of a schema as plain ones. Pure.
#pragma once

#include <string>
#include <string_view>

#include "jinja/value.h"

namespace wideload::grammar {

// The member of an object; null when there is none or it is no object.
inline const jinja::Value* MemberOf(const jinja::Value& value, std::string_view name) {
  return value.Map() != nullptr ? value.Map()->Find(name) : nullptr;
}

// A pointer with one more step. Source: RFC 6901.
std::string Below(const std::string& pointer, std::string_view step);

// JSON Schema's name of the value's type; "integer" also of 1.0.
std::string_view TypeName(const jinja::Value& value);
// Whether a value of the type `is` counts as `wanted`: an integer is a number.
inline bool IsOfType(std::string_view is, std::string_view wanted) {
  return is == wanted || (is == "integer" && wanted == "number");
}
// As JSON values are equal: 1 is 1.0, and the order of keys is of no matter.
bool AreEqual(const jinja::Value& a, const jinja::Value& b);

// Whether two schemas can be seen to allow no value both: their types differ, or a property that
// both require has other values.
bool AreDisjoint(const jinja::Value& a, const jinja::Value& b);

}  // namespace wideload::grammar
