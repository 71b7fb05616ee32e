// kernel.h for nvcc: compute capability 8.0 and higher.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "device/cuda_check.h"

#define WIDELOAD_DEVICE __device__ __forceinline__
#define WIDELOAD_HOST_DEVICE __host__ __device__ __forceinline__
#define WIDELOAD_PRAGMA(text) _Pragma(#text)
#define WIDELOAD_UNROLL WIDELOAD_PRAGMA(unroll)
#define WIDELOAD_UNROLL_BY(count) WIDELOAD_PRAGMA(unroll(count))

namespace wideload::device {

WIDELOAD_DEVICE int Thread() { return static_cast<int>(threadIdx.x); }
WIDELOAD_DEVICE int NumThreads() { return static_cast<int>(blockDim.x); }
WIDELOAD_DEVICE int Lane() { return static_cast<int>(threadIdx.x) % kWarp; }
WIDELOAD_DEVICE int Warp() { return static_cast<int>(threadIdx.x) / kWarp; }
WIDELOAD_DEVICE int64_t Block() { return blockIdx.x; }
WIDELOAD_DEVICE int64_t NumBlocks() { return gridDim.x; }
WIDELOAD_DEVICE int64_t BlockY() { return blockIdx.y; }

WIDELOAD_DEVICE std::byte* SharedMemory() {
  extern __shared__ __align__(1024) std::byte wideload_shared_memory[];
  return wideload_shared_memory;
}

// A value of several words, at a multiple of its alignment, in one access.
template <class T>
WIDELOAD_DEVICE T Load(const void* address) {
  return *static_cast<const T*>(address);
}
template <class T>
WIDELOAD_DEVICE void Store(void* address, const T& value) {
  *static_cast<T*>(address) = value;
}

WIDELOAD_DEVICE void SyncBlock() { __syncthreads(); }
WIDELOAD_DEVICE void SyncWarp() { __syncwarp(); }
template <class T>
WIDELOAD_DEVICE T ShuffleXor(T value, int mask) {
  return __shfl_xor_sync(0xffffffffU, value, mask);
}
template <class T>
WIDELOAD_DEVICE T Shuffle(T value, int lane) {
  return __shfl_sync(0xffffffffU, value, lane);
}
WIDELOAD_DEVICE uint32_t Ballot(bool is_set) { return __ballot_sync(0xffffffffU, is_set); }
WIDELOAD_DEVICE int NumBits(uint32_t bits) { return __popc(bits); }

WIDELOAD_DEVICE int32_t AtomicAdd(int32_t* to, int32_t value) { return atomicAdd(to, value); }
WIDELOAD_DEVICE void FenceDevice() { __threadfence(); }

WIDELOAD_DEVICE float FloatOfBits(uint32_t bits) { return __uint_as_float(bits); }
WIDELOAD_DEVICE uint32_t BitsOfFloat(float value) { return __float_as_uint(value); }
WIDELOAD_DEVICE float MultiplyAdd(float a, float b, float c) { return __fmaf_rn(a, b, c); }
WIDELOAD_DEVICE float Divide(float a, float b) { return __fdiv_rn(a, b); }
WIDELOAD_DEVICE float SquareRoot(float a) { return __fsqrt_rn(a); }
WIDELOAD_DEVICE float Largest(float a, float b) { return fmaxf(a, b); }
WIDELOAD_DEVICE float Exp2(float a) {
  float y;
  asm("ex2.approx.f32 %0, %1;" : "=f"(y) : "f"(a));
  return y;
}

WIDELOAD_DEVICE uint32_t RoundPairToBf16(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

WIDELOAD_DEVICE uint32_t SharedAddress(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}
WIDELOAD_DEVICE void CopyAsync16(void* shared, const void* global, int num_bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(SharedAddress(shared)),
               "l"(__cvta_generic_to_global(global)), "r"(num_bytes)
               : "memory");
}
WIDELOAD_DEVICE void CommitCopies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kPending>
WIDELOAD_DEVICE void WaitCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

WIDELOAD_DEVICE void LoadMatrices4(uint32_t (&fragments)[4], const void* shared_row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(fragments[0]), "=r"(fragments[1]), "=r"(fragments[2]), "=r"(fragments[3])
               : "r"(SharedAddress(shared_row))
               : "memory");
}
WIDELOAD_DEVICE void LoadMatrices2(uint32_t (&fragments)[2], const void* shared_row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(fragments[0]), "=r"(fragments[1])
               : "r"(SharedAddress(shared_row))
               : "memory");
}
WIDELOAD_DEVICE void LoadMatrices2Transposed(uint32_t (&fragments)[2], const void* shared_row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(fragments[0]), "=r"(fragments[1])
               : "r"(SharedAddress(shared_row))
               : "memory");
}
WIDELOAD_DEVICE void LoadMatrices4Transposed(uint32_t (&fragments)[4], const void* shared_row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(fragments[0]), "=r"(fragments[1]), "=r"(fragments[2]), "=r"(fragments[3])
               : "r"(SharedAddress(shared_row))
               : "memory");
}
WIDELOAD_DEVICE void MultiplyMatrices(float (&sums)[4], const uint32_t (&a)[4],
                                      const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

template <class Kernel>
__global__ void __launch_bounds__(Kernel::kThreads, 1) Entry(const typename Kernel::Args args) {
  Kernel::Run(args);
}

// Starts a kernel. Errors: kRunFailed naming the kernel's type.
template <class Kernel>
void Launch(Stream& stream, const Grid& grid, const typename Kernel::Args& args) {
  constexpr int64_t kWithoutOptIn = 48 << 10;
  auto* const native = static_cast<cudaStream_t>(stream.native());  // chooses the device
  if (grid.shared_bytes > kWithoutOptIn)
    CheckCuda(cudaFuncSetAttribute(Entry<Kernel>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   static_cast<int>(grid.shared_bytes)),
              __PRETTY_FUNCTION__);
  const dim3 blocks(static_cast<unsigned>(grid.blocks), static_cast<unsigned>(grid.blocks_y));
  Entry<Kernel><<<blocks, static_cast<unsigned>(grid.threads),
                  static_cast<size_t>(grid.shared_bytes), native>>>(args);
  CheckCuda(cudaGetLastError(), __PRETTY_FUNCTION__);
  stream.AfterLaunch();
}

}  // namespace wideload::device
