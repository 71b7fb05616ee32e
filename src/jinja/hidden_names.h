// Which names a body hides before it sets them. Part of the parser.
#pragma once

#include "jinja/ast.h"

namespace wideload::jinja {

// Fills the lists `hidden` of a program: a name that a body sets, outside of any `if`, and does not
// read before, is undefined until then, even where a variable of the rendering has it. Source:
// jinja2 3.1, idtracking.py.
void FindHiddenNames(Program& program);

}  // namespace wideload::jinja
