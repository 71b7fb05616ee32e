// What devices compute in the made-up layer of exchange_load.h, and the devices: of this processor
// (load_kernels_emulated.cc), or GPUs (load_kernels_gpu.cc, load_kernels.cu).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "device/device.h"

namespace wideload::exchange {

// y[i] = ExpertValue of each element of x[i].
struct ExpertArgs {
  const std::byte* const* x = nullptr;
  std::byte* const* y = nullptr;
  int64_t hidden = 0;
  int32_t expert = 0;
};
void ApplyExperts(device::Stream& stream, const ExpertArgs& args, int64_t rows);

// out[t] = the rows of a token, each by its weight, k ascending; null rows are left out.
struct SumArgs {
  const std::byte* const* rows = nullptr;  // [tokens * K]
  const float* weights = nullptr;          // likewise
  float* out = nullptr;                    // [tokens][hidden]
  int64_t hidden = 0;
  int top_k = 0;
};
void SumRows(device::Stream& stream, const SumArgs& args, int64_t tokens);

// A plain copy, and that of the engine.
struct CopyArgs {
  const std::byte* const* from = nullptr;
  std::byte* const* to = nullptr;
  int64_t row_bytes = 0;
};
void CopyRowsPlainly(device::Stream& stream, const CopyArgs& args, int64_t rows);
void CopyRowsAsTheEngine(device::Stream& stream, const CopyArgs& args, int64_t rows);

// At least one device, `count` where there are as many; none with the reason.
std::vector<std::unique_ptr<device::Device>> DevicesUnderTest(int count, std::string& why_none);

}  // namespace wideload::exchange
