// The first GPU of this machine.
#include "compute/cuda/kernels.h"
#include "support/test_device.h"
#include "support/test_engine.h"

namespace wideload::testing_support {

std::string OpenTestDevice() {
  // Never freed: at the end of the program the runtime goes first.
  static auto& devices = *new std::vector<std::unique_ptr<device::Device>>;
  std::string why_none;
  if (device::NumDevices(why_none) == 0) return why_none;
  constexpr int kFirst[] = {0};
  if (devices.empty()) devices = device::OpenDevices(kFirst);
  TheDevice() = {.device = devices[0].get(), .kernels = compute::cuda::MmaKernels()};
  return "";
}

}  // namespace wideload::testing_support
