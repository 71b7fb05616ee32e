// How ranks that share a context divide the rows of an iteration among themselves: in twice as many
// pieces as they are, of which each has one from the beginning and the one as far from the end, so
// that of a prompt all look at as many keys. A plain value.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "parallel/mapping.h"

namespace wideload::runtime {

class ContextRows {
 public:
  // Rows that follow each other in the iteration, and their place when one rank's rows come after
  // the other's.
  struct Piece {
    parallel::Shard rows;
    int64_t place = 0;
  };
  static constexpr int32_t kMaxRanks = 8;

  // num_ranks: 1 to kMaxRanks.
  ContextRows(int64_t num_rows, int32_t num_ranks) : num_ranks_(num_ranks) {
    const int32_t count = num_pieces();
    int64_t place = 0;
    for (int32_t p = 0; p < count; ++p) {
      const int32_t of_rows = p % 2 == 0 ? p / 2 : count - 1 - p / 2;
      pieces_[static_cast<size_t>(p)] = {parallel::ShardOf(num_rows, count, of_rows), place};
      place += pieces_[static_cast<size_t>(p)].rows.size();
    }
    end_ = place;
  }

  // One rank's after the other's; one in all where there is one rank.
  std::span<const Piece> pieces() const {
    return std::span(pieces_).first(static_cast<size_t>(num_pieces()));
  }
  // The places of a rank's rows.
  parallel::Shard PlacesOf(int32_t rank) const {
    const auto first = static_cast<size_t>(rank) * 2;
    const bool is_last = rank + 1 == num_ranks_;
    return {num_ranks_ == 1 ? 0 : pieces_[first].place, is_last ? end_ : pieces_[first + 2].place};
  }
  // Where a row comes in that order; -1: there is no such row.
  int64_t PlaceOf(int64_t row) const {
    for (const Piece& piece : pieces())
      if (row >= piece.rows.begin && row < piece.rows.end)
        return piece.place + row - piece.rows.begin;
    return -1;
  }

 private:
  int32_t num_pieces() const { return num_ranks_ == 1 ? 1 : 2 * num_ranks_; }

  int32_t num_ranks_;
  std::array<Piece, size_t{2} * kMaxRanks> pieces_;
  int64_t end_ = 0;
};

}  // namespace wideload::runtime
