#include "moe/moe_runner.h"

#include <algorithm>

namespace wideload::moe {

using compute::ExpertGroup;

MoeRunner::MoeRunner(const MoeShape& shape)
    : shape_(shape),
      counts_(static_cast<size_t>(shape.num_experts)),
      groups_(static_cast<size_t>(shape.num_experts)) {}

void MoeRunner::Forward(const compute::Exec& exec, Workspace& workspace, int32_t,
                        const MoeWeights& weights, const TensorView& x, const TensorView& h) {
  const int64_t tokens = x.dim(0);
  const int64_t k = shape_.top_k;
  const DType wire = compute::ComputeDType(exec.kernels);
  const TensorView logits = workspace.TakeTensor(DType::kF32, {tokens, shape_.num_experts});
  const TensorView ids = workspace.TakeTensor(DType::kI32, {tokens, k});
  const TensorView top_weights = workspace.TakeTensor(DType::kF32, {tokens, k});
  compute::MatMul(exec, x, weights.router, logits);
  compute::RouterSoftmaxTopK(exec, logits, {.top_k = k, .normalize = shape_.normalize}, ids,
                             top_weights);
  const TensorView rows = workspace.TakeTensor(wire, {tokens, shape_.hidden});
  compute::Convert(exec, x, rows);
  const TensorView results = workspace.TakeTensor(wire, {tokens * k, shape_.hidden});

  std::fill(counts_.begin(), counts_.end(), 0);
  for (int64_t i = 0; i < tokens * k; ++i) ++counts_[static_cast<size_t>(ids.data<int32_t>()[i])];
  const auto x_rows = workspace.Take<const std::byte*>(tokens * k);
  const auto y_rows = workspace.Take<std::byte*>(tokens * k);
  const auto returned = workspace.Take<const std::byte*>(tokens * k);
  size_t first = 0;
  for (size_t e = 0; e < groups_.size(); ++e) {
    const auto n = static_cast<size_t>(counts_[e]);
    groups_[e] = {&weights.experts[e], x_rows.subspan(first, n), y_rows.subspan(first, n)};
    counts_[e] = static_cast<int32_t>(first);
    first += n;
  }
  for (int64_t i = 0; i < tokens * k; ++i) {
    const auto at = static_cast<size_t>(counts_[static_cast<size_t>(ids.data<int32_t>()[i])]++);
    x_rows[at] = static_cast<const std::byte*>(rows.raw()) + i / k * rows.row_bytes();
    y_rows[at] = static_cast<std::byte*>(results.raw_mutable()) + i * results.row_bytes();
    returned[static_cast<size_t>(i)] = y_rows[at];
  }
  compute::ExpertMlp(exec, groups_, workspace);
  compute::CombineRows(exec, returned, top_weights, h);
}

}  // namespace wideload::moe
