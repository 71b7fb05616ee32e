// How an op is executed: which kernel set, on which threads. `auto` is a fixed table over CPUID,
// never a measurement.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "base/thread_pool.h"
#include "tensor/buffer.h"
#include "tensor/dtype.h"

namespace wideload::compute {

// Ordered from the plainest. reference computes in fp32 throughout and is the oracle; the others
// keep weights, GEMM inputs, wire rows and KV in bf16 and accumulate in fp32.
enum class KernelSet { kReference, kAvx2, kAvx512, kAvx512Bf16, kAmx };

// "reference", "avx2", "avx512", "avx512_bf16", "amx"
std::string_view KernelSetName(KernelSet kernels);
// A name above, or "auto". Errors: kInvalid with the allowed names; kUnsupported when this machine
// cannot run it, naming the missing CPU features.
KernelSet ParseKernelSet(std::string_view name);
// The kernel sets this machine can run, in enum order (always at least reference).
std::span<const KernelSet> SupportedKernelSets();
// What `auto` means here: amx where there is AMX; avx512_bf16 on AMD with AVX512_BF16; avx512;
// avx2; reference.
KernelSet AutoKernelSet();

// The dtype of GEMM inputs, wire rows and the KV cache: F32 under reference, BF16 otherwise.
inline DType ComputeDType(KernelSet kernels) {
  return kernels == KernelSet::kReference ? DType::kF32 : DType::kBF16;
}

// Passed to every op. `pool` must outlive the call; results do not depend on its number of threads.
struct Exec {
  KernelSet kernels = KernelSet::kReference;
  ThreadPool* pool = nullptr;
};

// Ends the process unless this thread rounds to nearest with denormals kept (MXCSR default); every
// thread that computes calls it once at start.
void CheckFloatingPointMode();

}  // namespace wideload::compute
