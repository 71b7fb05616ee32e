// How the numbers of a weight matrix are held in memory: the precision of each, the scales that a
// block of them shares, and how many bytes a packed group of columns takes. Pure. Every kernel set
// uses the same layouts, so that packed weights may be copied between processes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "compute/exec.h"

namespace wideload::compute {

// a / b, rounded up, for a >= 0 and b > 0.
constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Columns (output features) of a packed matrix come in groups of 16, each group in one piece:
//   kF32    [k][16] fp32
//   kBF16   [k / 2][16][2] bf16, k padded by zeros to a multiple of 32
//   kFp8    e4m3 with one scale for 128 x 128 of them (DeepSeek). For each 128 k: [16] fp32 scales,
//           then [k / 2][16][2] bytes, the last k padded by zeros to a multiple of 32. A column
//           carries its own copy of the scales, so columns of any blocks may share a group.
//   kInt4   value + 8 in 4 bits, one bf16 scale for 32 k of a column (compressed-tensors,
//           "pack-quantized"). For each 64 k: [2][16] bf16 scales, then per 32 k [4][16] words of 8
//           values, low bits first.
//   kMxfp4  e2m1 in 4 bits, one power of two for 32 k of a column (OCP microscaling; GPT-OSS). For
//           each 128 k: [4][16] scale bytes (E8M0), then per 32 k [4][16] words of 8 values.
// k of kInt4 and kMxfp4 is a multiple of 32. A line of scales may stand before fewer blocks than it
// has room for at the end of k.
enum class WeightFormat : uint8_t { kF32, kBF16, kFp8, kInt4, kMxfp4 };
// Formats are numbered from 0.
inline constexpr int kNumWeightFormats = 5;

// "fp32", "bf16", "fp8", "int4", "mxfp4"
std::string_view WeightFormatName(WeightFormat format);

// Whether values share scales.
inline bool IsBlockScaled(WeightFormat format) {
  return format != WeightFormat::kF32 && format != WeightFormat::kBF16;
}

// The k that share one scale; a matrix may be cut along k at multiples of it only. 1 where there
// are no scales.
int64_t ScaleBlockK(WeightFormat format);

// What unquantised weights are held in: fp32 under reference, bf16 otherwise.
WeightFormat PlainFormat(KernelSet kernels);

// What a matrix of this format is multiplied with: F32 for kF32, the kernel set's activations
// otherwise.
DType InputDType(KernelSet kernels, WeightFormat format);

// Bytes of one packed group of 16 columns; a multiple of 64.
int64_t GroupBytes(WeightFormat format, int64_t k);

}  // namespace wideload::compute
