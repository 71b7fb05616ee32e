// What the exchange of an engine's ranks did, as counts that grow: the difference of two tells of
// the iterations between them. Plain values.
#pragma once

#include <array>
#include <cstdint>

#include "comm/communicator.h"
#include "exchange/exchange.h"

namespace wideload::runtime {

// Of one rank, since its start.
struct RankExchange {
  exchange::ExchangeTraffic traffic;
  std::array<comm::WaitStatistics, exchange::kNumWaitKinds> waits{};  // by exchange::WaitKind
  double known_imbalance_sum = 0;  // MoeRunner::imbalance_sum_of_known_counts
};

// Sums over all ranks, except where said.
struct ExchangeFigures {
  int64_t num_iterations = 0;  // of the engine
  int64_t num_rounds = 0;      // of one rank: all take part in each
  int64_t num_rows = 0;        // sent, one per token and destination rank
  int64_t num_returns = 0;     // sent back, one per token and chosen expert
  // Waits that were not over at once, by exchange::WaitKind.
  std::array<comm::WaitStatistics, exchange::kNumWaitKinds> waits{};
  // (busiest - mean) / mean of the rows that the ranks computed, summed over iterations and layers.
  double imbalance_sum = 0;
  double balancedness_sum = 0;  // mean / busiest of the same
  int64_t num_imbalances = 0;
  // Of microbatch mode: the first of these as it had been with the counts of each iteration known.
  double known_imbalance_sum = 0;

  // Of one iteration, all ranks together; 0 when there was none.
  double WaitsPerIteration(exchange::WaitKind kind) const;
  // 0 when there was no wait.
  double MicrosecondsPerWait(exchange::WaitKind kind) const;
  // Mean over iterations and layers.
  double MeanImbalance() const;
  double MeanBalancedness() const;  // 1: even; 1 too when there was nothing
  double MeanKnownImbalance() const;
};

// `later` and `earlier` are of the same engine.
ExchangeFigures operator-(const ExchangeFigures& later, const ExchangeFigures& earlier);

// "counts", "rows", "returns": the keys of reports.
const char* WaitKindName(exchange::WaitKind kind);

}  // namespace wideload::runtime
