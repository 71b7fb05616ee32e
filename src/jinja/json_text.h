// Values as JSON text, as Python's json.dumps writes it.
#pragma once

#include <optional>

#include "jinja/runtime.h"

namespace wideload::jinja {

struct JsonStyle {
  bool ensures_ascii = false;
  bool sorts_keys = false;
  std::optional<MarkedText> indent{};  // of one level; lines are broken when given
  std::optional<MarkedText> item_separator{};
  std::optional<MarkedText> key_separator{};
};

// Errors: kInvalid for a value that JSON does not have.
Value ToJson(Runtime& runtime, const Value& value, const JsonStyle& style);

}  // namespace wideload::jinja
