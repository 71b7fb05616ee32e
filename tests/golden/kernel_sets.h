// What the golden suites run with: one file of the program says it.
#pragma once

#include <vector>

#include "compute/exec.h"

namespace wideload::testing_support {

// At least one.
std::vector<compute::KernelSet> GoldenKernelSets();

}  // namespace wideload::testing_support
