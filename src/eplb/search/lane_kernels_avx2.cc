#include "eplb/search/lane_kernels_impl.h"

namespace wideload::eplb {

const LaneKernels& Avx2LaneKernels() { return kKernels; }

}  // namespace wideload::eplb
