// This processor in place of a GPU.
#include "compute/cuda/kernels.h"
#include "device/emulated/emulated_device.h"
#include "support/test_device.h"
#include "support/test_engine.h"

namespace wideload::testing_support {

std::string OpenTestDevice() {
  static const std::unique_ptr<device::Device> device = device::MakeEmulatedDevice();
  TheDevice() = {.device = device.get(), .kernels = compute::cuda::EmulatedMmaKernels()};
  return "";
}

}  // namespace wideload::testing_support
