#include "ops_conformance.h"

namespace wideload::compute {

std::vector<KernelSet> KernelSetsUnderTest() {
  const auto supported = SupportedKernelSets();
  return {supported.begin(), supported.end()};
}

// None of them is on a device.
void PutOnDevice(Exec&) {}

}  // namespace wideload::compute
