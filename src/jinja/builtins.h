// The functions of the language by name. Part of the interpreter.
#pragma once

#include <string_view>

#include "jinja/callable.h"

namespace wideload::jinja {

// Null when there is none of the name.
const Builtin* FindFilter(std::string_view name);
const Builtin* FindTest(std::string_view name);
const Builtin* FindFunction(std::string_view name);
// The method `name` of a value of its kind: strings, lists, tuples, mappings, loops.
const Builtin* FindMethod(const Value& object, std::string_view name);
// An attribute that Python's values of the kind have and templates cannot use here: a method that
// is not supported, or one that changes its object, which the sandbox forbids.
enum class PythonAttribute { kNone, kForbidden, kUnsupported };
PythonAttribute AttributeInPython(const Value& object, std::string_view name);

}  // namespace wideload::jinja
