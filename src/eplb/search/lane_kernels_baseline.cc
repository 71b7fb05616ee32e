#include "eplb/search/lane_kernels_impl.h"

namespace wideload::eplb {

const LaneKernels& BaselineLaneKernels() { return kKernels; }

}  // namespace wideload::eplb
