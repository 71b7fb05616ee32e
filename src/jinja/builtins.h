// The functions of the language by name. Part of the interpreter.
#pragma once

#include <string_view>

#include "jinja/callable.h"

namespace wideload::jinja {

// Null when there is none of the name.
const Builtin* FindFilter(std::string_view name);
// A test, as in `x is odd`; null if there is none of that name.
const Builtin* FindTest(std::string_view name);
// A function, as range(); null if there is none of that name.
const Builtin* FindFunction(std::string_view name);
// The method `name` of a value of its kind: strings, lists, tuples, mappings, loops.
const Builtin* FindMethod(const Value& object, std::string_view name);
// An attribute that Python's values of the kind have and templates cannot use here: a method that
// is not supported, or one that changes its object, which the sandbox forbids.
enum class PythonAttribute { kNone, kForbidden, kUnsupported };
// What Python would find at that name of a value of this kind.
PythonAttribute AttributeInPython(const Value& object, std::string_view name);

}  // namespace wideload::jinja
