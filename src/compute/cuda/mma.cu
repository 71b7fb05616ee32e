#include "compute/cuda/table.h"

namespace wideload::compute::cuda {

const Kernels* MmaKernels() { return &kMmaTable; }

}  // namespace wideload::compute::cuda
