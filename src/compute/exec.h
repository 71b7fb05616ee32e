// How an op is executed: which kernel set, on which threads. `auto` is a fixed table over CPUID,
// never a measurement.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "base/thread_pool.h"
#include "tensor/buffer.h"
#include "tensor/dtype.h"

namespace wideload::device {
class Stream;
}  // namespace wideload::device

namespace wideload::compute {

namespace cuda {
struct Kernels;
}  // namespace cuda

// Ordered from the plainest. reference computes in fp32 throughout and is the oracle; the others
// keep plain weights, GEMM inputs, wire rows and KV in bf16 and accumulate in fp32. Those from
// kCudaMma on are of accelerators.
enum class KernelSet { kReference, kAvx2, kAvx512, kAvx512Bf16, kAmx, kCudaMma };

// "reference", "avx2", "avx512", "avx512_bf16", "amx", "cuda_mma"
std::string_view KernelSetName(KernelSet kernels);
// The name of a processor's kernel set, or "auto". Errors: kInvalid with the allowed names;
// kUnsupported when this machine cannot run it, naming the missing CPU features.
KernelSet ParseKernelSet(std::string_view name);
// The kernel sets this machine's processor can run, in enum order (always at least reference).
std::span<const KernelSet> SupportedKernelSets();
// What `auto` means here: amx where there is AMX; avx512_bf16 on AMD with AVX512_BF16; avx512;
// avx2; reference.
KernelSet AutoKernelSet();

// The dtypes of what passes between ops.
struct Precision {
  DType activations = DType::kF32;  // inputs of matrix products, rows on the wire
  DType kv_cache = DType::kF32;
  bool operator==(const Precision&) const = default;
};

// F32 throughout under reference, BF16 otherwise.
inline Precision PrecisionOf(KernelSet kernels) {
  const DType dtype = kernels == KernelSet::kReference ? DType::kF32 : DType::kBF16;
  return {.activations = dtype, .kv_cache = dtype};
}

// Whether ops of this set are put on a stream of a device and read and write its memory.
inline bool IsOnDevice(KernelSet kernels) { return kernels >= KernelSet::kCudaMma; }

// Passed to every op. `pool` must outlive the call; results do not depend on its number of threads.
struct Exec {
  KernelSet kernels = KernelSet::kReference;
  ThreadPool* pool = nullptr;
  // Of sets on a device: where ops are put, and what they are. Results are there once the stream
  // has come to its end; what the views of an op refer to is memory of the device.
  device::Stream* stream = nullptr;
  const cuda::Kernels* device_kernels = nullptr;

  Precision precision() const { return PrecisionOf(kernels); }
};

// Ends the process unless this thread rounds to nearest with denormals kept (MXCSR default); every
// thread that computes calls it once at start.
void CheckFloatingPointMode();

}  // namespace wideload::compute
