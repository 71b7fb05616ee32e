#include "exchange/send_plan.h"

#include <algorithm>

#include "base/error.h"

namespace wideload::exchange {

SendPlan::SendPlan(const ExchangeShape& shape)
    : top_k_(shape.top_k),
      num_ranks_(shape.num_ranks),
      rank_of_slot_(static_cast<size_t>(shape.num_slots)),
      last_token_(static_cast<size_t>(shape.num_ranks)),
      num_pairs_(static_cast<size_t>(shape.num_ranks)),
      comb_offsets_(static_cast<size_t>(shape.num_ranks)),
      row_offsets_(static_cast<size_t>(shape.num_ranks) + 1),
      next_row_(static_cast<size_t>(shape.num_ranks)),
      tokens_(static_cast<size_t>(shape.max_rows * std::min(shape.num_ranks, shape.top_k))),
      pair_index_(static_cast<size_t>(shape.max_rows * shape.top_k)),
      pair_rank_(static_cast<size_t>(shape.max_rows * shape.top_k)) {
  for (int s = 0; s < shape.num_slots; ++s)
    rank_of_slot_[static_cast<size_t>(s)] = s / shape.slots_per_rank();
}

void SendPlan::Count(int64_t num_tokens, std::span<const int32_t> slots) {
  std::fill(last_token_.begin(), last_token_.end(), -1);
  std::fill(num_pairs_.begin(), num_pairs_.end(), 0);
  std::fill(row_offsets_.begin(), row_offsets_.end(), 0);
  const auto top_k = static_cast<size_t>(top_k_);
  for (size_t t = 0; t < static_cast<size_t>(num_tokens); ++t)
    for (size_t i = t * top_k; i < (t + 1) * top_k; ++i) {
      pair_rank_[i] = -1;
      if (slots[i] < 0) continue;
      WIDELOAD_CHECK(static_cast<size_t>(slots[i]) < rank_of_slot_.size(), "slot {} of {}",
                     slots[i], rank_of_slot_.size());
      const int32_t dst = rank_of_slot_[static_cast<size_t>(slots[i])];
      const auto d = static_cast<size_t>(dst);
      pair_rank_[i] = dst;
      pair_index_[i] = num_pairs_[d]++;
      if (last_token_[d] != static_cast<int32_t>(t)) ++row_offsets_[d + 1];
      last_token_[d] = static_cast<int32_t>(t);
    }
}

void SendPlan::Make(int64_t num_tokens, std::span<const int32_t> slots) {
  Count(num_tokens, slots);
  int32_t comb_offset = 0;
  for (size_t d = 0; d < num_pairs_.size(); ++d) {
    comb_offsets_[d] = comb_offset;
    comb_offset += num_pairs_[d];
    row_offsets_[d + 1] += row_offsets_[d];
    next_row_[d] = row_offsets_[d];
  }
  std::fill(last_token_.begin(), last_token_.end(), -1);
  const auto top_k = static_cast<size_t>(top_k_);
  for (size_t t = 0; t < static_cast<size_t>(num_tokens); ++t)
    for (size_t i = t * top_k; i < (t + 1) * top_k; ++i) {
      if (pair_rank_[i] < 0) continue;
      const auto d = static_cast<size_t>(pair_rank_[i]);
      if (last_token_[d] == static_cast<int32_t>(t)) continue;
      last_token_[d] = static_cast<int32_t>(t);
      tokens_[static_cast<size_t>(next_row_[d]++)] = static_cast<int32_t>(t);
    }
}

std::span<const int32_t> SendPlan::TokensTo(int dst) const {
  const auto begin = static_cast<size_t>(row_offsets_[static_cast<size_t>(dst)]);
  const auto end = static_cast<size_t>(row_offsets_[static_cast<size_t>(dst) + 1]);
  return std::span(tokens_).subspan(begin, end - begin);
}

int32_t SendPlan::ReturnIndex(int64_t entry) const {
  const auto i = static_cast<size_t>(entry);
  if (pair_rank_[i] < 0) return -1;
  return comb_offsets_[static_cast<size_t>(pair_rank_[i])] + pair_index_[i];
}

}  // namespace wideload::exchange
