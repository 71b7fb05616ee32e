// The ops that treat every row alike: embedding, norms, conversion, rotary positions, combine.
#include <algorithm>
#include <cstring>

#include "compute/dispatch.h"
#include "compute/ops.h"

namespace wideload::compute {
namespace {

void EmbedRow(const TensorView& table, int64_t id, float* y) {
  const int64_t width = table.dim(1);
  const auto* row = static_cast<const std::byte*>(table.raw()) + id * table.row_bytes();
  switch (table.dtype()) {
    case DType::kF32:
      std::memcpy(y, row, static_cast<size_t>(width) * sizeof(float));
      return;
    case DType::kBF16:
      for (int64_t i = 0; i < width; ++i) y[i] = ToFloat(reinterpret_cast<const BF16*>(row)[i]);
      return;
    default:
      for (int64_t i = 0; i < width; ++i) y[i] = LoadFloat(table.dtype(), row, i);
  }
}

}  // namespace

void Embed(const Exec& exec, const TensorView& table, std::span<const int32_t> ids,
           const TensorView& y) {
  const bool is_float =
      table.dtype() == DType::kF32 || table.dtype() == DType::kBF16 || table.dtype() == DType::kF16;
  WIDELOAD_CHECK(is_float && table.shape().rank() == 2, "Embed: table is {} {}",
                 DTypeName(table.dtype()), table.shape().ToString());
  const auto rows = static_cast<int64_t>(ids.size());
  CheckMatrix("Embed", "y", y, DType::kF32, {rows, table.dim(1)});
  for (const int32_t id : ids) {
    WIDELOAD_CHECK(id >= 0 && id < table.dim(0), "Embed: id {} of {}", id, table.dim(0));
  }
  RunRows(exec, rows, table.dim(1), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      EmbedRow(table, ids[static_cast<size_t>(t)], y.row<float>(t));
    }
  });
}

void RmsNorm(const Exec& exec, const TensorView& x, const TensorView& weight, float eps,
             const TensorView& y) {
  CheckMatrix("RmsNorm", "x", x, DType::kF32, {x.dim(0), x.dim(1)});
  CheckMatrix("RmsNorm", "weight", weight, DType::kF32, {x.dim(1)});
  const bool y_is_f32 = y.dtype() == DType::kF32;
  CheckMatrix("RmsNorm", "y", y, y_is_f32 ? DType::kF32 : ComputeDType(exec.kernels), x.shape());
  const NormArgs args = {.x = ReadRows(x),
                         .y = WriteRows(y),
                         .y_is_f32 = y_is_f32,
                         .weight = weight.data<float>(),
                         .heads = 1,
                         .width = x.dim(1),
                         .eps = eps};
  const auto norm = KernelsOf(exec.kernels).norm;
  RunRows(exec, x.dim(0), x.dim(1), [&](int64_t begin, int64_t end) { norm(args, begin, end); });
}

void RmsNormHeads(const Exec& exec, const TensorView& x, int64_t num_heads,
                  const TensorView& weight, float eps) {
  CheckMatrix("RmsNormHeads", "weight", weight, DType::kF32, {weight.dim(0)});
  CheckMatrix("RmsNormHeads", "x", x, DType::kF32, {x.dim(0), num_heads * weight.dim(0)});
  const NormArgs args = {.x = ReadRows(x),
                         .y = WriteRows(x),
                         .y_is_f32 = true,
                         .weight = weight.data<float>(),
                         .heads = num_heads,
                         .width = weight.dim(0),
                         .eps = eps};
  const auto norm = KernelsOf(exec.kernels).norm;
  RunRows(exec, x.dim(0), x.dim(1), [&](int64_t begin, int64_t end) { norm(args, begin, end); });
}

void Convert(const Exec& exec, const TensorView& x, const TensorView& y) {
  CheckMatrix("Convert", "x", x, DType::kF32, {x.dim(0), x.dim(1)});
  if (y.dtype() == DType::kF32) {
    CheckMatrix("Convert", "y", y, DType::kF32, x.shape());
    RunRows(exec, x.dim(0), x.dim(1), [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        std::copy_n(x.row<float>(t), x.dim(1), y.row<float>(t));
      }
    });
    return;
  }
  CheckMatrix("Convert", "y", y, ComputeDType(exec.kernels), x.shape());
  const ConvertArgs args = {.x = ReadRows(x), .y = WriteRows(y), .width = x.dim(1)};
  const auto convert = KernelsOf(exec.kernels).convert;
  RunRows(exec, x.dim(0), x.dim(1), [&](int64_t begin, int64_t end) { convert(args, begin, end); });
}

void RopeHalfSplit(const Exec& exec, const TensorView& x, int64_t num_heads, const RopeTable& table,
                   std::span<const int32_t> positions) {
  const auto rows = static_cast<int64_t>(positions.size());
  CheckMatrix("RopeHalfSplit", "x", x, DType::kF32, {rows, x.dim(1)});
  CheckMatrix("RopeHalfSplit", "cos", table.cos, DType::kF32, table.sin.shape());
  CheckMatrix("RopeHalfSplit", "sin", table.sin, DType::kF32, {table.cos.dim(0), table.cos.dim(1)});
  const int64_t head_dim = num_heads > 0 ? x.dim(1) / num_heads : 0;
  WIDELOAD_CHECK(head_dim * num_heads == x.dim(1) && 2 * table.cos.dim(1) <= head_dim,
                 "RopeHalfSplit: {} heads in rows of {}, rotating {} elements of each", num_heads,
                 x.dim(1), 2 * table.cos.dim(1));
  for (const int32_t p : positions) {
    WIDELOAD_CHECK(p >= 0 && p < table.cos.dim(0), "RopeHalfSplit: position {} of a table of {}", p,
                   table.cos.dim(0));
  }
  const RopeArgs args = {.x = WriteRows(x),
                         .heads = num_heads,
                         .head_dim = head_dim,
                         .half = table.cos.dim(1),
                         .cos = table.cos.data<float>(),
                         .sin = table.sin.data<float>(),
                         .cos_stride = table.cos.row_stride(),
                         .sin_stride = table.sin.row_stride(),
                         .positions = positions.data()};
  const auto rope = KernelsOf(exec.kernels).rope;
  RunRows(exec, rows, x.dim(1), [&](int64_t begin, int64_t end) { rope(args, begin, end); });
}

void CombineRows(const Exec& exec, std::span<const std::byte* const> rows,
                 const TensorView& weights, const TensorView& y) {
  CheckMatrix("CombineRows", "y", y, DType::kF32, {y.dim(0), y.dim(1)});
  CheckMatrix("CombineRows", "weights", weights, DType::kF32, {y.dim(0), weights.dim(1)});
  const int64_t top_k = weights.dim(1);
  WIDELOAD_CHECK(static_cast<int64_t>(rows.size()) == y.dim(0) * top_k,
                 "CombineRows: {} rows for {} tokens of {}", rows.size(), y.dim(0), top_k);
  const CombineArgs args = {.rows = rows.data(),
                            .weights = ReadRows(weights),
                            .top_k = top_k,
                            .y = WriteRows(y),
                            .width = y.dim(1)};
  const auto combine = KernelsOf(exec.kernels).combine;
  RunRows(exec, y.dim(0), y.dim(1) * top_k,
          [&](int64_t begin, int64_t end) { combine(args, begin, end); });
}

void RouterSoftmaxTopK(const Exec& exec, const TensorView& logits, const RouterOptions& options,
                       const TensorView& ids, const TensorView& weights) {
  const int64_t rows = logits.dim(0);
  CheckMatrix("RouterSoftmaxTopK", "logits", logits, DType::kF32, {rows, logits.dim(1)});
  CheckMatrix("RouterSoftmaxTopK", "ids", ids, DType::kI32, {rows, options.top_k});
  CheckMatrix("RouterSoftmaxTopK", "weights", weights, DType::kF32, {rows, options.top_k});
  WIDELOAD_CHECK(
      options.top_k >= 1 && options.top_k <= logits.dim(1) && logits.dim(1) <= kMaxExperts,
      "RouterSoftmaxTopK: top {} of {} experts ({} at most)", options.top_k, logits.dim(1),
      kMaxExperts);
  const RouterArgs args = {.logits = ReadRows(logits),
                           .experts = logits.dim(1),
                           .top_k = options.top_k,
                           .normalize = options.normalize,
                           .ids = WriteRows(ids),
                           .weights = WriteRows(weights)};
  const auto router = KernelsOf(exec.kernels).router;
  RunRows(exec, rows, logits.dim(1) * (options.top_k + 8),
          [&](int64_t begin, int64_t end) { router(args, begin, end); });
}

}  // namespace wideload::compute
