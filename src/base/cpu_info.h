// What this machine's processor and operating system let a kernel use. Thread-safe: detected once.
#pragma once

#include <string>

namespace wideload {

struct CpuInfo {
  std::string vendor;  // "GenuineIntel", "AuthenticAMD"
  std::string brand;   // "AMD EPYC 9B45 128-Core Processor"
  int family = 0;      // extended family added
  int model = 0;       // extended model added

  // True when the processor has it and the operating system saves its registers.
  bool avx2 = false;         // AVX2, FMA and F16C
  bool avx512 = false;       // AVX512 F, BW, VL and DQ, and avx2
  bool avx512_bf16 = false;  // vdpbf16ps, and avx512
  bool amx_bf16 = false;     // AMX-TILE and AMX-BF16, the kernel's permission included, and avx512
};

// Detected at the first call. Where there is AMX that call also asks Linux for the permission to
// use the tile registers, for the whole process; without it the first tile instruction is a SIGILL.
// Alternate signal stacks must then hold 64 KiB.
const CpuInfo& ThisCpu();

// CPUs this process may run on (its affinity mask); at least 1.
int NumAllowedCpus();

}  // namespace wideload
