// The tables of filters, tests, functions and methods. Part of the interpreter.
#pragma once

#include <span>

#include "jinja/callable.h"

namespace wideload::jinja {

std::span<const Builtin> TextFilters();    // of strings and numbers
std::span<const Builtin> ListFilters();    // of lists and mappings
std::span<const Builtin> SelectFilters();  // those that apply a filter, a test or an attribute
std::span<const Builtin> Tests();
// Functions without a value in front.
std::span<const Builtin> Functions();
// Methods of strings.
std::span<const Builtin> TextMethods();
// Methods of lists and tuples.
std::span<const Builtin> ListMethods();
// Methods of mappings.
std::span<const Builtin> DictMethods();
// Methods of `loop`.
std::span<const Builtin> LoopMethods();

// How an attribute given by its name, "a.b.0", or by its number is found in an item. Errors:
// kInvalid as for x[name].
class AttributePath {
 public:
  // A text is cut at its dots; another value is the one index; none stands for the item itself.
  AttributePath(Runtime& runtime, const Value& attribute);
  // What lies there in `item`.
  Value Of(Runtime& runtime, const Value& item) const;

 private:
  std::vector<Value> parts_;
};

// A stable sort; equal items keep their order, also when reversed.
void SortBy(Runtime& runtime, std::vector<Value>& items, bool is_reversed,
            const std::function<Value(const Value&)>& key);
// Strings in lower case, as the filters compare them unless asked otherwise.
Value IgnoringCase(Runtime& runtime, const Value& value);

}  // namespace wideload::jinja
