// The multiply-add rate of one core with all operands in registers: the bound a GEMM is measured
// against. Each function may only be called where the machine has its instructions.
#pragma once

#include <cstdint>

namespace wideload::bench {

// Runs `rounds` rounds of independent multiply-adds and returns the floating-point operations done;
// `sink` receives a value that depends on all of them.
double SseMulAddPeak(int64_t rounds, float* sink);
double Avx2FmaPeak(int64_t rounds, float* sink);
double Avx512FmaPeak(int64_t rounds, float* sink);
double Avx512Bf16Peak(int64_t rounds, float* sink);
double AmxBf16Peak(int64_t rounds, float* sink);

}  // namespace wideload::bench
