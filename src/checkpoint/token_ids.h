// Token ids as config.json and generation_config.json spell them. Private to this module.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace wideload::checkpoint {

// Ids are int32 everywhere else.
inline constexpr int64_t kMaxTokenId = (int64_t{1} << 31) - 1;

// Field `name`: null or absent (none), one id, or an array of ids, each at most kMaxTokenId.
// Repeated ids are kept once. Errors: kInvalid naming the field.
std::vector<int64_t> ReadTokenIds(const JsonFields& fields, std::string_view name);

}  // namespace wideload::checkpoint
