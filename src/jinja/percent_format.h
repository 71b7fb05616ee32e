// Python's % on strings, and str.format.
#pragma once

#include "jinja/runtime.h"

namespace wideload::jinja {

// format % values: the conversions s, r, d, i, u, x, X, o, f, F, e, E, g, G, c and %%. Errors:
// kInvalid and kUnsupported, as Runtime::Refuse.
MarkedText PercentFormat(Runtime& runtime, const MarkedText& format, const Value& values);

// format.format(arguments): fields by place or name, !s and !r, and the formats that the
// conversions above have.
MarkedText BraceFormat(Runtime& runtime, const MarkedText& format, const Arguments& arguments);

}  // namespace wideload::jinja
