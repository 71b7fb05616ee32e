#include "eplb/search/even_kernels_impl.h"

namespace wideload::eplb {

const EvenKernels& BaselineEvenKernels() { return kKernels; }

}  // namespace wideload::eplb
