// Which rows of a chunk go to which rank, and where each result comes back: a pure function of the
// chunk's slots. One per rank; not thread-safe. Allocates only when made.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "exchange/layout.h"

namespace wideload::exchange {

// A row goes once to each rank that owns at least one of its slots. Walking tokens, then k, in
// order, destination d counts its rows and its (token, k) pairs; its pairs come back in that order
// to the rows of this rank from comb_offset(d) on.
class SendPlan {
 public:
  // Scratch for chunks of up to the shape's tokens.
  explicit SendPlan(const ExchangeShape& shape);

  // slots [num_tokens * K]: global slot ids, -1 for none.
  void Make(int64_t num_tokens, std::span<const int32_t> slots);

  // The tokens that go to rank `dst`, ascending.
  std::span<const int32_t> TokensTo(int dst) const;
  // Entries (token, k) that `dst` computes.
  int32_t NumPairs(int dst) const { return num_pairs_[static_cast<size_t>(dst)]; }
  // The first of the return rows that `dst` fills.
  int32_t comb_offset(int dst) const { return comb_offsets_[static_cast<size_t>(dst)]; }
  // Row of the return rows where entry (token, k) comes back; -1 for slot -1.
  int32_t ReturnIndex(int64_t entry) const;
  int64_t num_rows() const { return row_offsets_.back(); }

  // The rank that owns a slot.
  int RankOf(int32_t slot) const { return rank_of_slot_[static_cast<size_t>(slot)]; }

 private:
  void Count(int64_t num_tokens, std::span<const int32_t> slots);

  int64_t top_k_;
  int num_ranks_;
  std::vector<int32_t> rank_of_slot_;  // [num_slots]
  std::vector<int32_t> last_token_;    // [R] the last token seen for a destination
  std::vector<int32_t> num_pairs_;     // [R]
  std::vector<int32_t> comb_offsets_;  // [R]
  std::vector<int32_t> row_offsets_;   // [R + 1]
  std::vector<int32_t> next_row_;      // [R]
  std::vector<int32_t> tokens_;        // [C * min(R, K)], by destination
  std::vector<int32_t> pair_index_;    // [C * K] within its destination, -1 for slot -1
  std::vector<int32_t> pair_rank_;     // [C * K]
};

}  // namespace wideload::exchange
