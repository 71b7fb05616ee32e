// The table of the mma.sync kernels, for the compiler that includes it: nvcc (mma.cu) or this
// processor's (emulated.cc).
#pragma once

#include "compute/cuda/row_kernels.h"

namespace wideload::compute::cuda {

inline constexpr Kernels kMmaTable = {.norm = Norm};

}  // namespace wideload::compute::cuda
