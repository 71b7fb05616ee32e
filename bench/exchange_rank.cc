#include "bench/exchange_rank.h"

#include <algorithm>
#include <cstring>
#include <random>

namespace wideload {
namespace {

constexpr int kNumExperts = 128;

}  // namespace

exchange::ExchangeShape BenchShape(int num_ranks, int64_t rows_per_peer) {
  return {.num_ranks = num_ranks,
          .max_rows = rows_per_peer * num_ranks,
          .top_k = 1,
          .row_bytes = kBenchRowBytes,
          .return_row_bytes = kBenchRowBytes,
          .num_experts = kNumExperts,
          .num_slots = num_ranks,
          .num_buffers = 1};
}

ExchangeRank::ExchangeRank(const BenchBatch& batch, exchange::Fabric& fabric,
                           comm::Communicator& group)
    : batch_(batch),
      exchange_(BenchShape(group.size(), batch.rows_per_peer), fabric, group),
      num_rows_(batch.rows_per_peer * group.size()),
      tokens_(static_cast<size_t>(num_rows_ * kBenchRowBytes), std::byte(group.rank())),
      slots_(static_cast<size_t>(num_rows_)),
      counts_(kNumExperts) {
  for (size_t i = 0; i < slots_.size(); ++i)
    slots_[i] = static_cast<int32_t>(i % static_cast<size_t>(group.size()));
  std::shuffle(slots_.begin(), slots_.end(), std::mt19937(static_cast<unsigned>(group.rank())));
}

void ExchangeRank::Iterate() {
  exchange_.PublishCounts(counts_, true);
  exchange_.WaitCounts();
  exchange_.Dispatch({.rows = tokens_.data(),
                      .row_stride = kBenchRowBytes,
                      .num_tokens = num_rows_,
                      .slots = slots_});
  const auto received = exchange_.Receive();
  if (batch_.reads_rows)
    for (const exchange::Exchange::SlotRows& slot : received)
      for (const std::byte* row : slot.x_rows) Read(row);
  if (batch_.with_return) SendBack(received);
  exchange_.Return();
  const auto returns = exchange_.WaitReturns();
  if (batch_.with_return && batch_.reads_rows)
    for (const std::byte* row : returns) Read(row);
}

// An expert that returns what it was given, as the other side's.
void ExchangeRank::SendBack(std::span<const exchange::Exchange::SlotRows> received) {
  for (const exchange::Exchange::SlotRows& slot : received)
    for (size_t i = 0; i < slot.y_rows.size(); ++i)
      std::memcpy(slot.y_rows[i], slot.x_rows[i], static_cast<size_t>(kBenchRowBytes));
}

void ExchangeRank::Read(const std::byte* row) {
  uint64_t sum = 0;
  for (int64_t i = 0; i < kBenchRowBytes; i += 8) {
    uint64_t word = 0;
    std::memcpy(&word, row + i, sizeof(word));
    sum += word;
  }
  sum_ = sum_ + sum;
}

}  // namespace wideload
