// The kernels of GPUs on a GPU. Without one every test of the program is skipped with the reason.
#include "compute/cuda/kernels.h"
#include "device/device.h"
#include "ops_conformance.h"
#include "tensor/buffer.h"

namespace wideload::compute {
namespace {

struct GpuUnderTest {
  std::unique_ptr<device::Device> device;
  std::unique_ptr<device::Stream> stream;
};

// For the whole program, whose end takes the runtime away before it could be freed.
GpuUnderTest& TheGpu() {
  static GpuUnderTest& under_test = *new GpuUnderTest;
  return under_test;
}

}  // namespace

std::vector<KernelSet> KernelSetsUnderTest() {
  if (device::NumDevices(WhyNoDevice()) > 0) {
    const int first[] = {0};
    TheGpu().device = std::move(device::OpenDevices(first)[0]);
    TheGpu().stream = TheGpu().device->MakeStream();
    TheGpu().stream->set_blocking(true);
    TestMemory() = &TheGpu().device->host_memory();
  }
  return {KernelSet::kCudaMma};
}

void PutOnDevice(Exec& exec) {
  exec.stream = TheGpu().stream.get();
  exec.device_kernels = cuda::MmaKernels();
}

}  // namespace wideload::compute
