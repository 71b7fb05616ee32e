#include <algorithm>

#include "compute/cuda/kernels.h"
#include "tests/ranks/load_kernels.h"

namespace wideload::exchange {

void CopyRowsAsTheEngine(device::Stream& stream, const CopyArgs& args, int64_t rows) {
  compute::cuda::MmaKernels()->copy_rows(stream, {args.from, args.to, args.row_bytes, rows});
}

std::vector<std::unique_ptr<device::Device>> DevicesUnderTest(int count, std::string& why_none) {
  std::vector<int> indices;
  for (int i = 0; i < std::min(count, device::NumDevices(why_none)); ++i) indices.push_back(i);
  if (indices.empty()) return {};
  return device::OpenDevices(indices);
}

}  // namespace wideload::exchange
