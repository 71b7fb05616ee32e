// One rank of our side of the exchange benchmarks. Used by one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "bench/bench_exchange.h"
#include "exchange/exchange.h"

namespace wideload {

// top-1, one slot per rank, one buffer.
exchange::ExchangeShape BenchShape(int num_ranks, int64_t rows_per_peer);

class ExchangeRank {
 public:
  ExchangeRank(const BenchBatch& batch, exchange::Fabric& fabric, comm::Communicator& group);

  // One round. Collective.
  void Iterate();

 private:
  void SendBack(std::span<const exchange::Exchange::SlotRows> received);
  void Read(const std::byte* row);

  BenchBatch batch_;
  exchange::Exchange exchange_;
  int64_t num_rows_;
  std::vector<std::byte> tokens_;
  std::vector<int32_t> slots_;
  std::vector<int32_t> counts_;
  volatile uint64_t sum_ = 0;
};

}  // namespace wideload
