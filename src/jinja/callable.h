// What a template can call, and the arguments of calls. Part of the interpreter.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "jinja/value.h"

namespace wideload::jinja {

// Operators of two values.
enum class Operator {
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kFloorDivide,
  kModulo,
  kPower,
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn,
};

struct MacroNode;
struct Statement;
struct Scope;

// What a call was given.
struct Arguments {
  std::vector<Value> positional{};
  std::vector<std::pair<std::string, Value>> named{};
};

// Arguments by the place of their parameter; nothing where not given.
using BoundArguments = std::vector<std::optional<Value>>;

// A filter, test, method or function of the language. A filter's first parameter is its value, a
// method's its object.
struct Builtin {
  std::string_view name;
  std::vector<std::string_view> parameters;
  size_t num_required = 0;
  Value (*run)(Runtime&, const BoundArguments&) = nullptr;
  // Instead of `run`: takes whatever is given, the value first.
  Value (*run_any)(Runtime&, const Arguments&) = nullptr;
};

struct Callable {
  const Builtin* builtin = nullptr;
  Value self{};  // of a method
  const MacroNode* macro = nullptr;
  Scope* closure = nullptr;  // of a macro
};

// The variable `loop` of a running for.
struct Loop {
  std::function<std::optional<Value>()> fetch;  // the next item; none once the loop has ended
  std::optional<Value> after;                   // fetched ahead
  std::vector<Value> ahead;                     // fetched to learn the length, in reverse
  std::optional<Value> before;
  std::optional<Value> current;
  std::optional<std::vector<Value>> changed;
  int64_t index0 = -1;
  int64_t depth0 = 0;
  int depth_of_items = 0;
  const Statement* recursive = nullptr;
  Scope* closure = nullptr;

  // Whether there is a next item; then `after` holds it.
  bool Peek();
  // Goes to the next item; false at the end.
  bool Advance();
  // Items in all: takes the rest of them first.
  int64_t Length();

 private:
  std::optional<Value> Fetch();
};

}  // namespace wideload::jinja
