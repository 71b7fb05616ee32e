// What tests of rows on an emulated device share.
#pragma once

#include "device/kernel.h"
#include "exchange/device_rows.h"

namespace wideload::exchange {

// A warp for each row, byte by byte.
struct TestCopyKernel {
  using Args = RowCopies;
  static constexpr int kThreads = 32;
  static WIDELOAD_DEVICE void Run(const Args& args) {
    const std::byte* const from = args.from[device::Block()];
    std::byte* const to = args.to[device::Block()];
    for (int64_t i = device::Lane(); i < args.row_bytes; i += device::kWarp) to[i] = from[i];
  }
};

// A CopyRowsKernel.
inline void TestCopyRows(device::Stream& stream, const RowCopies& copies) {
  device::Launch<TestCopyKernel>(stream, {.blocks = copies.num_rows}, copies);
}

}  // namespace wideload::exchange
