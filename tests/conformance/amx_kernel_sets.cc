#include "base/cpu_info.h"
#include "ops_conformance.h"

namespace wideload::compute {

// Emulated tiles need AVX-512 beside them.
std::vector<KernelSet> KernelSetsUnderTest() {
  if (!ThisCpu().avx512) return {};
  return {KernelSet::kAmx};
}

// None of them is on a device.
void PutOnDevice(Exec&) {}

}  // namespace wideload::compute
