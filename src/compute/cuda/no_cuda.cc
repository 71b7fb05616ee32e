#include "compute/cuda/kernels.h"

namespace wideload::compute::cuda {

const Kernels* MmaKernels() { return nullptr; }

}  // namespace wideload::compute::cuda
