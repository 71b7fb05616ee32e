// What the ops share on their way from checked arguments to kernels. Internal to compute.
#pragma once

#include <cstdint>

#include "base/error.h"
#include "compute/cuda/kernels.h"
#include "compute/exec.h"
#include "compute/kernels.h"
#include "compute/ops.h"
#include "tensor/tensor_view.h"

namespace wideload::compute {

// The table of a processor's kernel set.
const Kernels& KernelsOf(KernelSet kernels);
// The functions of a device's set, and where they put their work. Ends the process where `op` is
// not among them.
template <class Function>
Function* OnDevice(const Exec& exec, const char* op, Function* cuda::Kernels::*function) {
  WIDELOAD_CHECK(exec.stream != nullptr && exec.device_kernels != nullptr &&
                     exec.device_kernels->*function != nullptr,
                 "{}: is not among the ops of {}", op, KernelSetName(exec.kernels));
  return exec.device_kernels->*function;
}

// The rows of a view, as kernels read them.
inline InRows ReadRows(const TensorView& x) {
  return {.base = static_cast<const std::byte*>(x.raw()), .stride_bytes = x.row_bytes()};
}
// The rows of a view, as kernels write them.
inline OutRows WriteRows(const TensorView& y) {
  return {.base = static_cast<std::byte*>(y.raw_mutable()), .stride_bytes = y.row_bytes()};
}

// Ends the process unless `view` is a matrix [rows, columns] of `dtype`.
void CheckMatrix(const char* op, const char* argument, const TensorView& view, DType dtype,
                 const Shape& shape);

// Ends the process unless `y` is F32 or of exec's activations, and of this shape.
void CheckOutput(const char* op, const Exec& exec, const TensorView& y, const Shape& shape);
// The runs of every head's part. Ends the process unless they fit the rows.
HeadRuns CheckHeads(const char* op, const HeadPart& x);

// The rows of one head after another, to read.
inline InRows ReadHeads(const HeadPart& x) {
  return {
      .base = static_cast<const std::byte*>(x.rows.raw()) + x.first * DTypeBytes(x.rows.dtype()),
      .stride_bytes = x.rows.row_bytes()};
}
// The same, to write.
inline OutRows WriteHeads(const HeadPart& x) {
  return {
      .base = static_cast<std::byte*>(x.rows.raw_mutable()) + x.first * DTypeBytes(x.rows.dtype()),
      .stride_bytes = x.rows.row_bytes()};
}

// Runs task(i, thread) for each i on the pool, or here when the whole work, in multiply-adds or
// elements moved, is too small to be worth waking it.
void RunTasks(const Exec& exec, int64_t num_tasks, int64_t work,
              FunctionRef<void(int64_t, int)> task);

// RunTasks over [0, rows) in pieces of rows that hold about the same work whatever the pool.
// body(begin, end).
template <class Body>
void RunRows(const Exec& exec, int64_t rows, int64_t work_per_row, Body&& body) {
  constexpr int64_t kWorkPerTask = 32768;
  const int64_t grain = std::max<int64_t>(1, kWorkPerTask / std::max<int64_t>(1, work_per_row));
  const auto piece = [&](int64_t i, int) { body(i * grain, std::min(rows, (i + 1) * grain)); };
  RunTasks(exec, (rows + grain - 1) / grain, rows * work_per_row, piece);
}

}  // namespace wideload::compute
