#include "ops_conformance.h"

namespace wideload::compute {

std::vector<KernelSet> KernelSetsUnderTest() {
  const auto supported = SupportedKernelSets();
  return {supported.begin(), supported.end()};
}

}  // namespace wideload::compute
