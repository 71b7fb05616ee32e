// The table of the mma.sync kernels, for the compiler that includes it: nvcc (mma.cu) or this
// processor's (emulated.cc).
#pragma once

#include "compute/cuda/attention_launch.h"
#include "compute/cuda/gemm_f32_kernel.h"
#include "compute/cuda/gemm_kernels.h"
#include "compute/cuda/router_kernels.h"
#include "compute/cuda/row_kernels.h"

namespace wideload::compute::cuda {

inline constexpr Kernels kMmaTable = {.embed = Embed,
                                      .gemm_f32 = GemmF32,
                                      .gemm_bf16 = GemmBf16,
                                      .norm = Norm,
                                      .convert = ConvertHeads,
                                      .rope = Rope,
                                      .router = Route,
                                      .combine = Combine,
                                      .gather_rows = GatherRows,
                                      .copy_rows = CopyRows,
                                      .store_kv = StoreKv,
                                      .attention = PagedAttention};

}  // namespace wideload::compute::cuda
