// Counts what the test program takes from the heap. Link wideload_test_allocations once;
// thread-safe.
#pragma once

#include <cstdint>

namespace wideload::testing_support {

// Calls of operator new since the program started, by all threads.
int64_t NumAllocations();

}  // namespace wideload::testing_support
