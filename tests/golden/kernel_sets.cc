#include "golden/kernel_sets.h"

namespace wideload::testing_support {

std::vector<compute::KernelSet> GoldenKernelSets() {
  const auto supported = compute::SupportedKernelSets();
  return {supported.begin(), supported.end()};
}

}  // namespace wideload::testing_support
