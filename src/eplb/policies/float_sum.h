// Sums in single precision in the order PyTorch adds on a CPU, for results that must equal those of
// a PyTorch program to the last bit. Pure; thread-safe.
#pragma once

#include <span>

namespace wideload::eplb {

// The sum of a contiguous row as torch.sum gives it with 256-bit vectors: rows of at least 8 in
// 8 lanes, four vectors at a time, lanes added last and after the tail; shorter rows in four lanes.
// Long rows are added in blocks (cascade summation), which bounds the rounding error.
float PyTorchSum(std::span<const float> row);

// PyTorchSum / n in single precision; NaN for an empty row.
float PyTorchMean(std::span<const float> row);

}  // namespace wideload::eplb
