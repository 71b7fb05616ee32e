#include "moe/divided_experts.h"

#include <algorithm>

#include "base/error.h"
#include "parallel/mapping.h"

namespace wideload::moe {

DividedExperts::DividedExperts(const MoeShape& shape, const MoeLayout& layout,
                               comm::Communicator& group)
    : group_(group),
      num_slots_(layout.num_slots),
      hidden_ends_(parallel::ColumnEnds(shape.hidden, layout.parts)),
      slots_(static_cast<size_t>(layout.chunk_tokens * shape.top_k() * layout.parts)),
      part_results_(static_cast<size_t>(layout.chunk_tokens * shape.top_k())) {
  WIDELOAD_CHECK(group.size() == layout.parts, "{} ranks for {} parts of experts", group.size(),
                 layout.parts);
}

std::span<const int32_t> DividedExperts::SlotsOfParts(std::span<const int32_t> slots) {
  size_t at = 0;
  for (const int32_t slot : slots)
    for (int32_t part = 0; part < group_.size(); ++part)
      slots_[at++] = slot < 0 ? -1 : part * num_slots_ + slot;
  return std::span(slots_).first(at);
}

TensorView DividedExperts::TakeGated(DType dtype, int64_t rows, int64_t columns) {
  turn_ = 1 - turn_;
  Buffer& buffer = gated_[turn_];
  const int64_t num_bytes = rows * columns * DTypeBytes(dtype);
  if (buffer.num_bytes() < num_bytes) buffer = Buffer(num_bytes + num_bytes / 2);
  return buffer.View(dtype, {rows, columns});
}

void DividedExperts::Compute(const compute::Exec& exec,
                             std::span<const compute::ExpertGroup> groups,
                             const compute::GatedActivation& activation, Workspace& workspace) {
  int64_t rows = 0;
  for (const compute::ExpertGroup& group : groups) rows += std::ssize(group.x_rows);
  if (rows == 0) return;
  const int64_t inner = groups[0].weights->shape().inner;
  if (inner_ends_.empty()) inner_ends_ = parallel::ColumnEnds(inner, group_.size());
  const auto rank = static_cast<size_t>(group_.rank());
  const int64_t begin = rank == 0 ? 0 : inner_ends_[rank - 1];
  const TensorView gated = TakeGated(exec.precision().activations, rows, inner);
  compute::ExpertGateUp(exec, groups, activation, workspace,
                        gated.Columns(begin, inner_ends_[rank] - begin));
  group_.AllGatherColumns({.data = static_cast<std::byte*>(gated.raw_mutable()),
                           .num_rows = rows,
                           .row_stride_bytes = gated.row_bytes(),
                           .element_bytes = DTypeBytes(gated.dtype()),
                           .ends = inner_ends_});
  compute::ExpertDown(exec, groups, workspace, gated);
}

void DividedExperts::Combine(const compute::Exec& exec, std::span<const std::byte* const> returned,
                             const TensorView& weights, const TensorView& h) {
  const auto parts = static_cast<size_t>(group_.size());
  const std::span<const std::byte*> results =
      std::span(part_results_).first(returned.size() / parts);
  int64_t begin = 0;
  for (size_t part = 0; part < parts; ++part) {
    for (size_t i = 0; i < results.size(); ++i) results[i] = returned[i * parts + part];
    compute::CombineRows(exec, results, weights, h.Columns(begin, hidden_ends_[part] - begin));
    begin = hidden_ends_[part];
  }
}

}  // namespace wideload::moe
