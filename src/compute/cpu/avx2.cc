// The avx2 kernel set. Compiled for AVX2, FMA: nothing here may be linked anywhere else, so all of
// it but the table is internal.
#include "compute/cpu/vec_avx2.h"
// The vec header comes first.
#include "compute/cpu/attention_impl.h"
#include "compute/cpu/panel_impl.h"
#include "compute/cpu/row_ops_impl.h"
#include "compute/kernels.h"

namespace wideload::compute {

const Kernels& Avx2Kernels() {
  static constexpr Kernels kKernels = {
      .gemm = {RunGemm<F32Dot>, RunWidenedGemm, RunScaledGemm<Fp8Blocks>, RunScaledGemm<Int4Blocks>,
               RunScaledGemm<Mxfp4Blocks>},
      .norm = Norm,
      .convert = Convert,
      .rope = Rope,
      .attention = Attention,
      .merge_attention = MergeAttention,
      .router = Router,
      .combine = Combine};
  return kKernels;
}

}  // namespace wideload::compute
