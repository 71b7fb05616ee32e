#include "eplb/search/even_kernels.h"

namespace wideload::eplb {

const EvenKernels& BestEvenKernels() {
  if (__builtin_cpu_supports("avx512f")) return Avx512EvenKernels();
  if (__builtin_cpu_supports("avx2")) return Avx2EvenKernels();
  return BaselineEvenKernels();
}

}  // namespace wideload::eplb
