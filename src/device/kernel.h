// What kernels are written in: one source for nvcc, and for a processor that runs its threads one
// after the other (emulated/), where tests see what it computes without a GPU. A kernel is a type
// with
//
//   using Args = ...;                          // trivially copyable, by value
//   static constexpr int kThreads = 128;       // of a block, a multiple of 32, at most
//   static WIDELOAD_DEVICE void Run(const Args& args);
//
// and is started by Launch<Kernel>(stream, {.blocks = ..., .threads = ..., .shared_bytes = ...},
// args). Kernels use what is named here and no builtin of the compiler. Multiply-adds are explicit
// (MultiplyAdd); nvcc is told to make none of its own (--fmad=false), as GCC is. Functions are
// WIDELOAD_DEVICE, and WIDELOAD_HOST_DEVICE where the host calls them, too; WIDELOAD_UNROLL or
// WIDELOAD_UNROLL_BY(count) goes before a loop whose indices must be constants to stay in
// registers.
//
//   Thread() NumThreads() Lane() Warp()        where the thread is in its block
//   Block() NumBlocks() BlockY()               and the block in its grid
//   SharedMemory()                             the block's, 1024-byte aligned, of any content
//   Load<T>(address) Store(address, value)     several words in one access: T at its alignment
//   SyncBlock() SyncWarp()                     all threads, or lanes, meet
//   Shuffle(value, lane) ShuffleXor(value, mask) Ballot(bool) NumBits(bits)   all lanes call them
//   AtomicAdd(int32_t*, value) FenceDevice()   integers only: what depends on no order
//   MultiplyAdd Divide SquareRoot              rounded once, to nearest
//   Largest                                    of two; of a NaN and a number the number
//   Exp2                                       2^x, the hardware's approximation
//   FloatOfBits BitsOfFloat FromBf16 ToBf16 PackBf16
//   CopyAsync16(shared, global, num_bytes) CommitCopies() WaitCopies<pending>()
//       16 bytes to shared memory, of which num_bytes are read and the rest are zeros; there, for
//       this thread, when WaitCopies says that all groups but the last `pending` are
//   LoadMatrices4 LoadMatrices4Transposed LoadMatrices2 LoadMatrices2Transposed(fragments, row)
//       ldmatrix: lane l names row l % 8 of matrix l / 8, 16 bytes
//   MultiplyMatrices(sums, a, b)               mma.sync m16n8k16 of bf16: sums += a b
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "device/device.h"

namespace wideload::device {

// What a kernel is started with; dimensions of at least 1.
struct Grid {
  int64_t blocks = 1;
  int64_t blocks_y = 1;  // at most 65,535
  int threads = 32;      // of a block, a multiple of 32
  int64_t shared_bytes = 0;
};

// Lanes of a warp.
inline constexpr int kWarp = 32;

}  // namespace wideload::device

#ifdef __CUDACC__
#include "device/kernel_cuda_impl.h"
#else
#include "device/emulated/kernel_emulated_impl.h"
#endif

namespace wideload::device {

// bf16 as kernels have it: its 16 bits.
WIDELOAD_DEVICE float FromBf16(uint16_t bits) {
  return FloatOfBits(static_cast<uint32_t>(bits) << 16);
}
// To the nearest, ties to even; a NaN stays one. The bits of ToBF16 in tensor/dtype.h.
WIDELOAD_DEVICE uint16_t ToBf16(float value) {
  const uint32_t bits = BitsOfFloat(value);
  if ((bits & 0x7fffffffU) > 0x7f800000U) return static_cast<uint16_t>((bits >> 16) | 0x40U);
  return static_cast<uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}
// Two of them in a register, the first in the low half. Which NaN a NaN becomes is the device's.
WIDELOAD_DEVICE uint32_t PackBf16(float first, float second) {
#ifdef __CUDACC__
  return RoundPairToBf16(first, second);
#else
  return static_cast<uint32_t>(ToBf16(first)) | static_cast<uint32_t>(ToBf16(second)) << 16;
#endif
}

// Sum, or largest, over the lanes of a warp: the same tree for every lane. All lanes call it.
WIDELOAD_DEVICE float WarpSum(float value) {
  for (int mask = kWarp / 2; mask > 0; mask /= 2) value += ShuffleXor(value, mask);
  return value;
}

}  // namespace wideload::device
