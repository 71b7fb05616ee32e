#include "golden/kernel_sets.h"

namespace wideload::testing_support {

std::vector<compute::KernelSet> GoldenKernelSets() { return {compute::KernelSet::kCudaMma}; }

}  // namespace wideload::testing_support
