// How the ranks of a tensor-parallel group divide the columns of rows: each computes its own from
// whole rows, then all gather. No sum is split, so the bits are those of one rank. Constant once
// made, so thread-safe.
#pragma once

#include <cstdint>
#include <vector>

#include "model/model.h"
#include "parallel/mapping.h"

namespace wideload::model {

class ColumnCut {
 public:
  // One piece.
  ColumnCut() = default;
  // `size` columns in pieces for the ranks of the group, in steps that suit the kernels.
  ColumnCut(int64_t size, const TensorRank& rank);
  // Piece r are the columns [ends[r - 1], ends[r]).
  ColumnCut(std::vector<int64_t> ends, int32_t rank) : ends_(std::move(ends)), rank_(rank) {}

  parallel::Shard Of(int32_t rank) const;

  // This rank's columns of `rows` [T, size]; all of them when there is one piece.
  TensorView Own(const TensorView& rows) const;
  // Every rank of the group has filled its own columns; afterwards each has all. The group has the
  // same T. This rank's columns then stay as they are until its next collective of the group has
  // returned. Collective over rank.tensor, but for one piece or no rows. Errors: comm::PeerLost.
  void Gather(const RankContext& rank, const TensorView& rows) const;

 private:
  std::vector<int64_t> ends_;
  int32_t rank_ = 0;
};

// ColumnCut::Gather of rows: rank r has filled ShardOf(T, size of the group, r); these stay as they
// are, likewise. `rows` is dense.
void GatherRows(const RankContext& rank, const TensorView& rows);
// The same of the ranks of any group, of which rank r has filled rows [row_ends[r - 1],
// row_ends[r]). Collective over the group, but for no rows.
void GatherRows(const RankContext& rank, comm::Communicator& group, const TensorView& rows,
                std::span<const int64_t> row_ends);

}  // namespace wideload::model
