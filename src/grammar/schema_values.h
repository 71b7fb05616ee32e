// Values of a schema as plain ones. Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

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
// Whether schemas can be seen to allow no value both: their types differ, or a property that both
// require has other values. Values are equal as JSON's are: 1 is 1.0, and the order of keys is of
// no matter.
class Disjointness {
 public:
  // After so many steps of all comparisons together nothing is seen any more.
  static constexpr int64_t kMaxSteps = 1'000'000;

  // False: it is not seen.
  bool AreDisjoint(const jinja::Value& a, const jinja::Value& b);

 private:
  using Values = std::vector<const jinja::Value*>;
  bool HaveNoCommonValue(const Values& a, const Values& b);
  bool AreEqual(const jinja::Value& a, const jinja::Value& b);
  bool Requires(const jinja::Value& schema, std::string_view name);

  int64_t num_steps_ = 0;
};

}  // namespace wideload::grammar
