// How the readers of tokenizer.json refuse what is not implemented. Include only in .cc files.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>

#include "base/json.h"

namespace wideload::tokenizer {

// Errors: kUnsupported unless each field of the object is one of `known`.
void RefuseOtherFields(const JsonFields& fields, std::initializer_list<std::string_view> known);

// The same for a component of type ByteLevel. Errors: also kInvalid.
void RefuseOtherByteLevelFields(const JsonFields& fields);

// Errors: kUnsupported, naming field, found value and `allowed`.
[[noreturn]] void RefuseUnsupported(const JsonFields& fields, std::string_view name,
                                    std::string_view allowed);

// The array `name`, empty when absent or null. Errors: kInvalid when it is no array.
const Json& ArrayOrEmpty(const JsonFields& fields, std::string_view name);

// Element `index` of the array `name` as an object.
JsonFields Element(const JsonFields& fields, std::string_view name, size_t index);

}  // namespace wideload::tokenizer
