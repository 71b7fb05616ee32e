// Vectors are indexed by ids and counts, which are signed everywhere in this module. Thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>

namespace wideload::eplb {

// `i` >= 0 as an index into a vector.
inline size_t Index(int64_t i) { return static_cast<size_t>(i); }

}  // namespace wideload::eplb
