#include "model/column_cut.h"

#include "comm/communicator.h"

namespace wideload::model {

ColumnCut::ColumnCut(int64_t size, const TensorRank& rank)
    : ends_(parallel::ColumnEnds(size, rank.size)), rank_(rank.rank) {}

parallel::Shard ColumnCut::Of(int32_t rank) const {
  const auto r = static_cast<size_t>(rank);
  return {r == 0 ? 0 : ends_[r - 1], ends_[r]};
}

TensorView ColumnCut::Own(const TensorView& rows) const {
  if (ends_.size() <= 1) return rows;
  WIDELOAD_CHECK(rows.dim(1) == ends_.back(), "rows of {} columns, cut are {}", rows.dim(1),
                 ends_.back());
  const parallel::Shard own = Of(rank_);
  return rows.Columns(own.begin, own.size());
}

void ColumnCut::Gather(const RankContext& rank, const TensorView& rows) const {
  if (ends_.size() <= 1 || rows.dim(0) == 0) return;
  rank.tensor->AllGatherColumns({.data = static_cast<std::byte*>(rows.raw_mutable()),
                                 .num_rows = rows.dim(0),
                                 .row_stride_bytes = rows.row_bytes(),
                                 .element_bytes = DTypeBytes(rows.dtype()),
                                 .ends = ends_});
}

void GatherRows(const RankContext& rank, const TensorView& rows) {
  if (rank.tensor == nullptr || rows.dim(0) == 0) return;
  const int32_t size = rank.tensor->size();
  const std::span<int64_t> ends = rank.workspace->Take<int64_t>(size);
  for (int32_t r = 0; r < size; ++r)
    ends[static_cast<size_t>(r)] = parallel::ShardOf(rows.dim(0), size, r).end;
  GatherRows(rank, *rank.tensor, rows, ends);
}

void GatherRows(const RankContext& rank, comm::Communicator& group, const TensorView& rows,
                std::span<const int64_t> row_ends) {
  if (rows.dim(0) == 0) return;
  const std::span<int64_t> ends = rank.workspace->Take<int64_t>(group.size());
  for (size_t r = 0; r < ends.size(); ++r) ends[r] = row_ends[r] * rows.dim(1);
  group.AllGatherColumns({.data = static_cast<std::byte*>(rows.raw_mutable()),
                          .num_rows = 1,
                          .row_stride_bytes = 0,
                          .element_bytes = DTypeBytes(rows.dtype()),
                          .ends = ends});
}

}  // namespace wideload::model
