// The kernels of GPUs, run by this processor.
#include "compute/cuda/kernels.h"
#include "device/emulated/emulated_device.h"
#include "ops_conformance.h"
#include "tensor/buffer.h"

namespace wideload::compute {
namespace {

struct DeviceUnderTest {
  std::unique_ptr<device::Device> device = device::MakeEmulatedDevice();
  std::unique_ptr<device::Stream> stream = device->MakeStream();
};

// For the whole program.
DeviceUnderTest& TheDevice() {
  static DeviceUnderTest under_test;
  return under_test;
}

}  // namespace

std::vector<KernelSet> KernelSetsUnderTest() {
  TestMemory() = &TheDevice().device->host_memory();
  return {KernelSet::kCudaMma};
}

void PutOnDevice(Exec& exec) {
  TheDevice().stream->set_blocking(true);
  exec.stream = TheDevice().stream.get();
  exec.device_kernels = cuda::EmulatedMmaKernels();
}

}  // namespace wideload::compute
