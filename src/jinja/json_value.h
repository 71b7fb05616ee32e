// JSON text as values: keys in their order, integers exact.
#pragma once

#include <string>
#include <string_view>

#include "jinja/value.h"

namespace wideload::jinja {

// Every string of it, keys included, is plain. Linear in the text. Errors: kCorrupt with `source`
// and the place, also for duplicate keys and for nesting deeper than 100.
Value ParseJsonValue(std::string_view text, const std::string& source);

}  // namespace wideload::jinja
