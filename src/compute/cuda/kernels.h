// What a kernel set of an accelerator provides: functions that put one op on a stream. The ops have
// checked the arguments; all pointers are to memory that the device reaches, and views of
// compute/kernels.h mean the same there. A row's result depends on neither the number of rows nor
// which others there are.
#pragma once

#include <cstdint>

#include "compute/kernels.h"
#include "device/device.h"

namespace wideload::compute::cuda {

// What the numbers of a table are stored as.
enum class TableFormat { kF32, kBf16, kF16 };

// y[t] = table[ids[t]].
struct EmbedArgs {
  const std::byte* table = nullptr;
  int64_t row_bytes = 0;
  TableFormat format = TableFormat::kF32;
  const int32_t* ids = nullptr;
  OutRows y;  // fp32
  int64_t width = 0;
};

// y's part of every head = x's part of it, times row_scales[row].
struct ConvertHeadsArgs {
  InRows x;  // fp32
  OutRows y;
  bool y_is_f32 = true;  // else activations
  int64_t heads = 1;
  int64_t width = 0;     // of a part
  int64_t x_stride = 0;  // from head to head, in elements
  int64_t y_stride = 0;
  const float* row_scales = nullptr;  // null: ones
};

// y[i] = x[indices[i]], of row_bytes each.
struct GatherArgs {
  InRows x;
  const int32_t* indices = nullptr;
  OutRows y;
  int64_t row_bytes = 0;
};

// *to[i] = *from[i], of row_bytes each, whatever their alignment; no row of `to` is one of `from`.
struct CopyRowsArgs {
  const std::byte* const* from = nullptr;
  std::byte* const* to = nullptr;
  int64_t row_bytes = 0;
  int64_t rows = 0;
};

// By op.
struct Kernels {
  void (*embed)(device::Stream&, const EmbedArgs&, int64_t rows) = nullptr;
  void (*norm)(device::Stream&, const NormArgs&, int64_t rows) = nullptr;
  void (*convert)(device::Stream&, const ConvertHeadsArgs&, int64_t rows) = nullptr;
  void (*rope)(device::Stream&, const RopeArgs&, int64_t rows) = nullptr;
  void (*router)(device::Stream&, const RouterArgs&, int64_t rows) = nullptr;
  void (*combine)(device::Stream&, const CombineArgs&, int64_t rows) = nullptr;
  void (*gather_rows)(device::Stream&, const GatherArgs&, int64_t rows) = nullptr;
  void (*copy_rows)(device::Stream&, const CopyRowsArgs&) = nullptr;
};

// mma.sync, compute capability 8.0 and higher. Null where the build has no CUDA.
const Kernels* MmaKernels();
// The same kernels on this processor, for streams of an emulated device. Only in tests.
const Kernels* EmulatedMmaKernels();

}  // namespace wideload::compute::cuda
