#include "compute/cuda/kernels.h"
#include "device/emulated/emulated_device.h"
#include "tests/ranks/load_kernels.cu"

namespace wideload::exchange {

void CopyRowsAsTheEngine(device::Stream& stream, const CopyArgs& args, int64_t rows) {
  compute::cuda::EmulatedMmaKernels()->copy_rows(stream,
                                                 {args.from, args.to, args.row_bytes, rows});
}

std::vector<std::unique_ptr<device::Device>> DevicesUnderTest(int count, std::string&) {
  return device::MakeEmulatedDevices(count, int64_t{1} << 30);
}

}  // namespace wideload::exchange
