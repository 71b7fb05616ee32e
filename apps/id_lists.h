// Token ids as JSON: a list of lists of non-negative integers.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace wideload::apps {

// `path` or "-". Errors: kCorrupt or kInvalid naming file, list, position, found and allowed.
std::vector<std::vector<int32_t>> ReadIdLists(const std::string& path);

}  // namespace wideload::apps
