#include "eplb/search/lane_kernels.h"

namespace wideload::eplb {

const LaneKernels& BestLaneKernels() {
  if (__builtin_cpu_supports("avx512f")) return Avx512LaneKernels();
  if (__builtin_cpu_supports("avx2")) return Avx2LaneKernels();
  return BaselineLaneKernels();
}

}  // namespace wideload::eplb
