// The ops that treat every row alike: embedding, norms, conversion, rotary positions, gather,
// combine.
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

cuda::TableFormat TableFormatOf(DType dtype) {
  if (dtype == DType::kF32) return cuda::TableFormat::kF32;
  return dtype == DType::kBF16 ? cuda::TableFormat::kBf16 : cuda::TableFormat::kF16;
}

const float* WeightOrNull(const TensorView& weight) {
  return weight.empty() ? nullptr : weight.data<float>();
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
  if (IsOnDevice(exec.kernels)) {
    const cuda::EmbedArgs args = {.table = static_cast<const std::byte*>(table.raw()),
                                  .row_bytes = table.row_bytes(),
                                  .format = TableFormatOf(table.dtype()),
                                  .ids = exec.stream->Upload(ids),
                                  .y = WriteRows(y),
                                  .width = table.dim(1)};
    return OnDevice(exec, "Embed", &cuda::Kernels::embed)(*exec.stream, args, rows);
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
  if (!weight.empty()) CheckMatrix("RmsNorm", "weight", weight, DType::kF32, {x.dim(1)});
  CheckOutput("RmsNorm", exec, y, x.shape());
  const NormArgs args = {.x = ReadRows(x),
                         .y = WriteRows(y),
                         .y_is_f32 = y.dtype() == DType::kF32,
                         .weight = WeightOrNull(weight),
                         .runs = {.heads = 1, .stride = x.dim(1), .width = x.dim(1)},
                         .eps = eps};
  if (IsOnDevice(exec.kernels)) {
    return OnDevice(exec, "RmsNorm", &cuda::Kernels::norm)(*exec.stream, args, x.dim(0));
  }
  const auto norm = KernelsOf(exec.kernels).norm;
  RunRows(exec, x.dim(0), x.dim(1), [&](int64_t begin, int64_t end) { norm(args, begin, end); });
}

void RmsNormHeads(const Exec& exec, const HeadPart& x, const TensorView& weight, float eps) {
  const HeadRuns runs = CheckHeads("RmsNormHeads", x);
  CheckMatrix("RmsNormHeads", "x", x.rows, DType::kF32, x.rows.shape());
  if (!weight.empty()) CheckMatrix("RmsNormHeads", "weight", weight, DType::kF32, {runs.width});
  const NormArgs args = {.x = ReadHeads(x),
                         .y = WriteHeads(x),
                         .y_is_f32 = true,
                         .weight = WeightOrNull(weight),
                         .runs = runs,
                         .eps = eps};
  if (IsOnDevice(exec.kernels)) {
    return OnDevice(exec, "RmsNormHeads", &cuda::Kernels::norm)(*exec.stream, args, x.rows.dim(0));
  }
  const auto norm = KernelsOf(exec.kernels).norm;
  RunRows(exec, x.rows.dim(0), x.rows.dim(1),
          [&](int64_t begin, int64_t end) { norm(args, begin, end); });
}

void Convert(const Exec& exec, const TensorView& x, const TensorView& y) {
  ConvertHeads(exec, {.rows = x}, {.rows = y});
}

void ConvertScaled(const Exec& exec, const TensorView& x, std::span<const float> scales,
                   const TensorView& y) {
  CheckMatrix("ConvertScaled", "x", x, DType::kF32, {x.dim(0), x.dim(1)});
  CheckOutput("ConvertScaled", exec, y, x.shape());
  WIDELOAD_CHECK(static_cast<int64_t>(scales.size()) == x.dim(0),
                 "ConvertScaled: {} scales for {} rows", scales.size(), x.dim(0));
  const bool y_is_f32 = y.dtype() == DType::kF32;
  if (IsOnDevice(exec.kernels)) {
    const cuda::ConvertHeadsArgs args = {.x = ReadRows(x),
                                         .y = WriteRows(y),
                                         .y_is_f32 = y_is_f32,
                                         .width = x.dim(1),
                                         .row_scales = scales.data()};
    return OnDevice(exec, "ConvertScaled", &cuda::Kernels::convert)(*exec.stream, args, x.dim(0));
  }
  const ConvertArgs args = {
      .x = ReadRows(x), .y = WriteRows(y), .width = x.dim(1), .row_scales = scales.data()};
  const auto convert = KernelsOf(exec.kernels).convert;
  RunRows(exec, x.dim(0), x.dim(1), [&](int64_t begin, int64_t end) {
    if (!y_is_f32) return convert(args, begin, end);
    for (int64_t t = begin; t < end; ++t) {
      const float* from = x.row<float>(t);
      float* to = y.row<float>(t);
      for (int64_t i = 0; i < x.dim(1); ++i) to[i] = from[i] * scales[static_cast<size_t>(t)];
    }
  });
}

void ConvertHeads(const Exec& exec, const HeadPart& x, const HeadPart& y) {
  const HeadRuns from = CheckHeads("ConvertHeads", x);
  const HeadRuns to = CheckHeads("ConvertHeads", y);
  CheckMatrix("ConvertHeads", "x", x.rows, DType::kF32, x.rows.shape());
  CheckOutput("ConvertHeads", exec, y.rows, {x.rows.dim(0), y.rows.dim(1)});
  WIDELOAD_CHECK(from.heads == to.heads && from.width == to.width,
                 "ConvertHeads: {} heads of {} to {} of {}", from.heads, from.width, to.heads,
                 to.width);
  if (IsOnDevice(exec.kernels)) {
    const cuda::ConvertHeadsArgs args = {.x = ReadHeads(x),
                                         .y = WriteHeads(y),
                                         .y_is_f32 = y.rows.dtype() == DType::kF32,
                                         .heads = from.heads,
                                         .width = from.width,
                                         .x_stride = from.stride,
                                         .y_stride = to.stride};
    return OnDevice(exec, "ConvertHeads", &cuda::Kernels::convert)(*exec.stream, args,
                                                                   x.rows.dim(0));
  }
  const auto convert = KernelsOf(exec.kernels).convert;
  const int64_t y_bytes = DTypeBytes(y.rows.dtype());
  RunRows(exec, x.rows.dim(0), from.heads * from.width, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float* row = x.rows.row<float>(t) + x.first;
      std::byte* out = WriteHeads(y).base + t * y.rows.row_bytes();
      if (y.rows.dtype() != DType::kF32) {
        // The heads of a row are rows of their own.
        convert({.x = {.base = reinterpret_cast<const std::byte*>(row),
                       .stride_bytes = from.stride * int64_t{sizeof(float)}},
                 .y = {.base = out, .stride_bytes = to.stride * y_bytes},
                 .width = from.width},
                0, from.heads);
        continue;
      }
      for (int64_t h = 0; h < from.heads; ++h) {
        std::copy_n(row + h * from.stride, from.width,
                    reinterpret_cast<float*>(out) + h * to.stride);
      }
    }
  });
}

void Rope(const Exec& exec, const HeadPart& x, RopePairs pairs, const RopeRows& rope) {
  const int64_t rows = x.rows.dim(0);
  const HeadRuns runs = CheckHeads("Rope", x);
  CheckMatrix("Rope", "x", x.rows, DType::kF32, {rows, x.rows.dim(1)});
  CheckMatrix("Rope", "cos", rope.cos, DType::kF32, {rows, rope.cos.dim(1)});
  CheckMatrix("Rope", "sin", rope.sin, DType::kF32, rope.cos.shape());
  WIDELOAD_CHECK(2 * rope.cos.dim(1) <= runs.width, "Rope: rotating {} elements of {}",
                 2 * rope.cos.dim(1), runs.width);
  const RopeArgs args = {.x = WriteHeads(x),
                         .runs = runs,
                         .half = rope.cos.dim(1),
                         .interleaved = pairs == RopePairs::kInterleaved,
                         .cos = rope.cos.data<float>(),
                         .sin = rope.sin.data<float>(),
                         .cos_stride = rope.cos.row_stride(),
                         .sin_stride = rope.sin.row_stride()};
  if (IsOnDevice(exec.kernels)) {
    return OnDevice(exec, "Rope", &cuda::Kernels::rope)(*exec.stream, args, rows);
  }
  const auto kernel = KernelsOf(exec.kernels).rope;
  RunRows(exec, rows, x.rows.dim(1), [&](int64_t begin, int64_t end) { kernel(args, begin, end); });
}

void GatherRows(const Exec& exec, const TensorView& x, std::span<const int32_t> indices,
                const TensorView& y) {
  const auto rows = static_cast<int64_t>(indices.size());
  CheckMatrix("GatherRows", "x", x, y.dtype(), {x.dim(0), x.dim(1)});
  CheckOutput("GatherRows", exec, y, {rows, x.dim(1)});
  for (const int32_t index : indices) {
    WIDELOAD_CHECK(index >= 0 && index < x.dim(0), "GatherRows: row {} of {}", index, x.dim(0));
  }
  const int64_t bytes = x.dim(1) * DTypeBytes(x.dtype());
  if (IsOnDevice(exec.kernels)) {
    const cuda::GatherArgs args = {.x = ReadRows(x),
                                   .indices = exec.stream->Upload(indices),
                                   .y = WriteRows(y),
                                   .row_bytes = bytes};
    return OnDevice(exec, "GatherRows", &cuda::Kernels::gather_rows)(*exec.stream, args, rows);
  }
  RunRows(exec, rows, x.dim(1), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      std::memcpy(WriteRows(y).base + i * y.row_bytes(),
                  ReadRows(x).base + indices[static_cast<size_t>(i)] * x.row_bytes(),
                  static_cast<size_t>(bytes));
    }
  });
}

void CombineRows(const Exec& exec, std::span<const std::byte* const> rows,
                 const TensorView& weights, const TensorView& y) {
  CheckMatrix("CombineRows", "y", y, DType::kF32, {y.dim(0), y.dim(1)});
  CheckMatrix("CombineRows", "weights", weights, DType::kF32, {y.dim(0), weights.dim(1)});
  const int64_t top_k = weights.dim(1);
  WIDELOAD_CHECK(static_cast<int64_t>(rows.size()) == y.dim(0) * top_k,
                 "CombineRows: {} rows for {} tokens of {}", rows.size(), y.dim(0), top_k);
  CombineArgs args = {.rows = rows.data(),
                      .weights = ReadRows(weights),
                      .top_k = top_k,
                      .y = WriteRows(y),
                      .width = y.dim(1)};
  if (IsOnDevice(exec.kernels)) {
    args.rows = exec.stream->Upload(rows);
    return OnDevice(exec, "CombineRows", &cuda::Kernels::combine)(*exec.stream, args, y.dim(0));
  }
  const auto combine = KernelsOf(exec.kernels).combine;
  RunRows(exec, y.dim(0), y.dim(1) * top_k,
          [&](int64_t begin, int64_t end) { combine(args, begin, end); });
}

void Route(const Exec& exec, const TensorView& logits, const RouterOptions& options,
           const TensorView& ids, const TensorView& weights) {
  const int64_t rows = logits.dim(0);
  const int64_t experts = logits.dim(1);
  CheckMatrix("Route", "logits", logits, DType::kF32, {rows, experts});
  CheckMatrix("Route", "ids", ids, DType::kI32, {rows, options.top_k});
  CheckMatrix("Route", "weights", weights, DType::kF32, {rows, options.top_k});
  const int64_t groups = options.num_groups;
  const bool groups_fit = groups >= 1 && groups <= kMaxExpertGroups && experts % groups == 0 &&
                          options.top_groups >= 1 && options.top_groups <= groups;
  WIDELOAD_CHECK(
      groups_fit && options.top_k >= 1 && experts <= kMaxExperts &&
          options.top_k <= experts / groups * options.top_groups,
      "Route: top {} of {} experts ({} at most) in the best {} of {} groups ({} at most)",
      options.top_k, experts, kMaxExperts, options.top_groups, groups, kMaxExpertGroups);
  const auto biases = static_cast<int64_t>(options.correction_bias.size());
  WIDELOAD_CHECK(biases == 0 || biases == experts, "Route: {} correction biases for {} experts",
                 biases, experts);
  const RouterArgs args = {.logits = ReadRows(logits),
                           .experts = experts,
                           .top_k = options.top_k,
                           .sigmoid = options.score == RouterScore::kSigmoid,
                           .bias = biases > 0 ? options.correction_bias.data() : nullptr,
                           .num_groups = groups,
                           .top_groups = options.top_groups,
                           .group_by_two = options.group_score == GroupScore::kTwoLargest,
                           .normalize = options.normalize,
                           .normalize_epsilon = options.normalize_epsilon,
                           .scale = options.scale,
                           .ids = WriteRows(ids),
                           .weights = WriteRows(weights)};
  if (IsOnDevice(exec.kernels)) {
    return OnDevice(exec, "Route", &cuda::Kernels::router)(*exec.stream, args, rows);
  }
  const auto router = KernelsOf(exec.kernels).router;
  RunRows(exec, rows, experts * (options.top_k + 8),
          [&](int64_t begin, int64_t end) { router(args, begin, end); });
}

}  // namespace wideload::compute
