#include "eplb/search/even_kernels_impl.h"

namespace wideload::eplb {

const EvenKernels& Avx512EvenKernels() { return kKernels; }

}  // namespace wideload::eplb
