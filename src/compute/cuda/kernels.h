// What a kernel set of an accelerator provides: functions that put one op on a stream. The ops have
// checked the arguments; all pointers are to memory that the device reaches, and views of
// compute/kernels.h mean the same there. A row's result depends on neither the number of rows nor
// which others there are.
#pragma once

#include <cstdint>

#include "compute/kernels.h"
#include "device/device.h"

namespace wideload::compute::cuda {

// By op.
struct Kernels {
  void (*norm)(device::Stream&, const NormArgs&, int64_t rows) = nullptr;
};

// mma.sync, compute capability 8.0 and higher. Null where the build has no CUDA.
const Kernels* MmaKernels();
// The same kernels on this processor, for streams of an emulated device. Only in tests.
const Kernels* EmulatedMmaKernels();

}  // namespace wideload::compute::cuda
