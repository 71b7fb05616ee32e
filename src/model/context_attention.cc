#include "model/context_attention.h"

#include <vector>

#include "model/column_cut.h"

namespace wideload::model {
namespace {

// The rows of all ranks of the group, [rows, q | k | v] F32.
struct GatheredRows {
  TensorView all;
  int64_t q_width = 0;
  int64_t k_width = 0;

  TensorView q() const { return all.Columns(0, q_width); }
  TensorView k() const { return all.Columns(q_width, k_width); }
  TensorView v() const {
    const int64_t before = q_width + k_width;
    return before == all.dim(1) ? TensorView() : all.Columns(before, all.dim(1) - before);
  }
};

GatheredRows Gather(const RankContext& rank, const Batch& batch, const ProjectedRows& rows) {
  const int64_t v_width = rows.v.empty() ? 0 : rows.v.dim(1);
  const int64_t width = rows.q.dim(1) + rows.k.dim(1) + v_width;
  const GatheredRows gathered{
      .all = rank.workspace->TakeTensor(DType::kF32, {batch.num_group_rows(), width}),
      .q_width = rows.q.dim(1),
      .k_width = rows.k.dim(1)};
  const auto own = [&](const TensorView& view) {
    return view.Rows(batch.first_row(rank.context->rank()), rows.q.dim(0));
  };
  if (rows.q.dim(0) > 0) {
    Convert(rank.exec, rows.q, own(gathered.q()));
    Convert(rank.exec, rows.k, own(gathered.k()));
    if (v_width > 0) Convert(rank.exec, rows.v, own(gathered.v()));
  }
  GatherRows(rank, *rank.context, gathered.all, batch.row_ends);
  return gathered;
}

// What each rank's part of the blocks gives for this rank's rows: [ranks, own rows, width] F32.
// `own` [all rows, width] is what this rank's part gives for everybody's.
TensorView Exchange(const RankContext& rank, const Batch& batch, const TensorView& own) {
  const int64_t row_bytes = own.row_bytes();
  std::vector<int64_t> ends;
  for (const int64_t end : batch.row_ends) ends.push_back(end * row_bytes);
  const TensorView parts = rank.workspace->TakeTensor(
      DType::kF32, {rank.context->size(), static_cast<int64_t>(batch.ids.size()), own.dim(1)});
  const auto bytes_of = [](const TensorView& view) {
    return std::span(static_cast<std::byte*>(view.raw_mutable()),
                     static_cast<size_t>(view.num_bytes()));
  };
  rank.context->AllToAll(bytes_of(own), ends, bytes_of(parts));
  return parts;
}

}  // namespace

void Attend(const RankContext& rank, const Batch& batch, int64_t layer,
            const compute::AttentionShape& shape, const ProjectedRows& rows, const TensorView& y) {
  compute::PagedKv cache{.keys = rank.cache->Keys(layer), .values = rank.cache->Values(layer)};
  const auto sequences = batch.SequencesOf(rank.cache->block_class(layer));
  if (rank.context == nullptr) {
    StoreKv(rank.exec, rows.k, rows.v, sequences, cache);
    PagedAttention(rank.exec, shape, rows.q, sequences, cache, y);
    return;
  }
  if (batch.num_group_rows() == 0) return;
  cache.part = rank.context->rank();
  cache.num_parts = rank.context->size();
  const GatheredRows gathered = Gather(rank, batch, rows);
  StoreKv(rank.exec, gathered.k(), gathered.v(), sequences, cache);
  const TensorView partial =
      rank.workspace->TakeTensor(DType::kF32, {batch.num_group_rows(), PartialWidth(shape)});
  PartialAttention(rank.exec, shape, gathered.q(), sequences, cache, partial);
  const TensorView parts = Exchange(rank, batch, partial);
  if (y.dim(0) > 0) MergeAttention(rank.exec, shape, parts, y);
}

}  // namespace wideload::model
