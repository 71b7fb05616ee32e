#include "compute/exec.h"

#include <xmmintrin.h>

#include <algorithm>
#include <array>
#include <vector>

#include "base/cpu_info.h"
#include "base/error.h"
#include "compute/dispatch.h"

namespace wideload::compute {
namespace {

constexpr std::array<std::string_view, 6> kSetNames = {"reference",   "avx2", "avx512",
                                                       "avx512_bf16", "amx",  "cuda_mma"};
constexpr std::string_view kAllowedNames =
    "auto, reference, avx2, avx512, avx512_bf16 and amx are allowed";

// Empty when this machine can run `kernels`, else what it lacks.
std::string_view MissingFeatures(KernelSet kernels) {
  const CpuInfo& cpu = ThisCpu();
  switch (kernels) {
    case KernelSet::kReference:
      return "";
    case KernelSet::kAvx2:
      return cpu.avx2 ? "" : "AVX2, FMA and F16C";
    case KernelSet::kAvx512:
      return cpu.avx512 ? "" : "AVX512F, AVX512BW, AVX512DQ and AVX512VL";
    case KernelSet::kAvx512Bf16:
      return cpu.avx512_bf16 ? "" : "AVX512F, AVX512BW, AVX512DQ, AVX512VL and AVX512_BF16";
    case KernelSet::kAmx:
      return cpu.amx_bf16 ? "" : "AVX512F, AVX512BW, AVX512DQ, AVX512VL, AMX-TILE and AMX-BF16";
    case KernelSet::kCudaMma:
      break;
  }
  return "a GPU";
}

}  // namespace

std::string_view KernelSetName(KernelSet kernels) {
  return kSetNames[static_cast<size_t>(kernels)];
}

KernelSet ParseKernelSet(std::string_view name) {
  if (name == "auto") return AutoKernelSet();
  const auto found = std::find(kSetNames.begin(), kSetNames.end(), name);
  const auto kernels = static_cast<KernelSet>(found - kSetNames.begin());
  if (found == kSetNames.end() || IsOnDevice(kernels)) {
    Throw(ErrorKind::kInvalid, "kernel set is \"{}\"; {}", name, kAllowedNames);
  }
  const std::string_view missing = MissingFeatures(kernels);
  if (!missing.empty()) {
    Throw(ErrorKind::kUnsupported,
          "kernel set {} needs {} (saved by the operating system); this machine ({}) does not have "
          "all of them",
          name, missing, ThisCpu().brand);
  }
  return kernels;
}

std::span<const KernelSet> SupportedKernelSets() {
  static const std::vector<KernelSet> supported = [] {
    std::vector<KernelSet> sets;
    for (size_t i = 0; i < kSetNames.size(); ++i) {
      const auto kernels = static_cast<KernelSet>(i);
      if (!IsOnDevice(kernels) && MissingFeatures(kernels).empty()) sets.push_back(kernels);
    }
    return sets;
  }();
  return supported;
}

KernelSet AutoKernelSet() {
  const CpuInfo& cpu = ThisCpu();
  if (cpu.amx_bf16) return KernelSet::kAmx;
  // vdpbf16ps runs at twice the rate of fp32 FMA on AMD and at half of it on Intel.
  if (cpu.avx512_bf16 && cpu.vendor == "AuthenticAMD") return KernelSet::kAvx512Bf16;
  if (cpu.avx512) return KernelSet::kAvx512;
  return cpu.avx2 ? KernelSet::kAvx2 : KernelSet::kReference;
}

const Kernels& KernelsOf(KernelSet kernels) {
  switch (kernels) {
    case KernelSet::kReference:
      break;
    case KernelSet::kAvx2:
      return Avx2Kernels();
    case KernelSet::kAvx512:
      return Avx512Kernels();
    case KernelSet::kAvx512Bf16:
      return Avx512Bf16Kernels();
    case KernelSet::kAmx:
      return AmxKernels();
    case KernelSet::kCudaMma:
      break;
  }
  WIDELOAD_CHECK(kernels == KernelSet::kReference, "{} has no kernels for this processor",
                 KernelSetName(kernels));
  return ReferenceKernels();
}

void CheckFloatingPointMode() {
  constexpr unsigned kModeBits = 0xffc0;  // masks, rounding, flush to zero, denormals are zero
  constexpr unsigned kDefault = 0x1f80;   // all exceptions masked, round to nearest, denormals kept
  const unsigned mode = _mm_getcsr();
  WIDELOAD_CHECK((mode & kModeBits) == kDefault,
                 "MXCSR of this thread is {:#x}, expected {:#x}: a library changed the rounding or "
                 "denormal mode",
                 mode, kDefault);
}

void CheckMatrix(const char* op, const char* argument, const TensorView& view, DType dtype,
                 const Shape& shape) {
  WIDELOAD_CHECK(view.dtype() == dtype && view.shape() == shape, "{}: {} is {} {}, expected {} {}",
                 op, argument, DTypeName(view.dtype()), view.shape().ToString(), DTypeName(dtype),
                 shape.ToString());
}

void CheckOutput(const char* op, const Exec& exec, const TensorView& y, const Shape& shape) {
  const bool is_f32 = y.dtype() == DType::kF32;
  CheckMatrix(op, "y", y, is_f32 ? DType::kF32 : exec.precision().activations, shape);
}

HeadRuns CheckHeads(const char* op, const HeadPart& x) {
  WIDELOAD_CHECK(x.rows.shape().rank() == 2 && x.heads >= 1 && x.rows.dim(1) % x.heads == 0,
                 "{}: {} heads in rows of {}", op, x.heads, x.rows.shape().ToString());
  const int64_t stride = x.rows.dim(1) / x.heads;
  const int64_t width = x.width > 0 ? x.width : stride - x.first;
  WIDELOAD_CHECK(x.first >= 0 && width >= 1 && x.first + width <= stride,
                 "{}: elements {} to {} of heads of {}", op, x.first, x.first + width, stride);
  return {.heads = x.heads, .stride = stride, .width = width};
}

void RunTasks(const Exec& exec, int64_t num_tasks, int64_t work,
              FunctionRef<void(int64_t, int)> task) {
  constexpr int64_t kInlineWork = 65536;
  if (exec.pool == nullptr || work < kInlineWork) {
    for (int64_t i = 0; i < num_tasks; ++i) task(i, 0);
    return;
  }
  exec.pool->Run(num_tasks, task);
}

}  // namespace wideload::compute
