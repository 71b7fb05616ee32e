#include "compute/cuda/table.h"

namespace wideload::compute::cuda {

const Kernels* EmulatedMmaKernels() { return &kMmaTable; }

}  // namespace wideload::compute::cuda
