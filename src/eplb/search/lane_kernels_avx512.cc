#include "eplb/search/lane_kernels_impl.h"

namespace wideload::eplb {

const LaneKernels& Avx512LaneKernels() { return kKernels; }

}  // namespace wideload::eplb
