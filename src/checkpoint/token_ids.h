// Token ids as config.json and generation_config.json spell them. Private to this module.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace wideload::checkpoint {

// Field `name`: null or absent (none), one id, or an array of ids, each in [0, 2^31). Repeated ids
// are kept once. Errors: kInvalid naming the field.
std::vector<int64_t> ReadTokenIds(const JsonFields& fields, std::string_view name);

}  // namespace wideload::checkpoint
