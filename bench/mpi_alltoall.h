// The other side of the exchange benchmarks: gather by index, MPI_Alltoall of counts,
// MPI_Alltoallv. One per MPI process, used by one thread.
#pragma once

#include <mpi.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "bench/bench_exchange.h"

namespace wideload {

class MpiAllToAll {
 public:
  MpiAllToAll(const BenchBatch& batch, int rank, int num_ranks)
      : batch_(batch),
        num_rows_(batch.rows_per_peer * num_ranks),
        tokens_(static_cast<size_t>(num_rows_ * kBenchRowBytes), static_cast<char>(rank)),
        packed_(tokens_.size()),
        received_(tokens_.size()),
        order_(static_cast<size_t>(num_rows_)),
        bytes_(static_cast<size_t>(num_ranks)),
        counts_(static_cast<size_t>(num_ranks), static_cast<int>(batch.rows_per_peer)),
        received_counts_(static_cast<size_t>(num_ranks)),
        offsets_(static_cast<size_t>(num_ranks)),
        received_bytes_(static_cast<size_t>(num_ranks)) {
    std::iota(order_.begin(), order_.end(), 0);
    std::shuffle(order_.begin(), order_.end(), std::mt19937(static_cast<unsigned>(rank)));
    std::fill(bytes_.begin(), bytes_.end(), static_cast<int>(batch.rows_per_peer * kBenchRowBytes));
    for (size_t r = 0; r < offsets_.size(); ++r)
      offsets_[r] =
          static_cast<int>(static_cast<int64_t>(r) * batch.rows_per_peer * kBenchRowBytes);
  }

  void Iterate() {
    AllToAll(tokens_);
    if (batch_.with_return) AllToAll(received_);
  }

 private:
  // Gather by index, counts, rows.
  void AllToAll(const std::vector<char>& rows) {
    for (int64_t i = 0; i < num_rows_; ++i)
      std::memcpy(packed_.data() + i * kBenchRowBytes,
                  rows.data() + order_[static_cast<size_t>(i)] * kBenchRowBytes,
                  static_cast<size_t>(kBenchRowBytes));
    MPI_Alltoall(counts_.data(), 1, MPI_INT, received_counts_.data(), 1, MPI_INT, MPI_COMM_WORLD);
    for (size_t r = 0; r < received_counts_.size(); ++r)
      received_bytes_[r] = static_cast<int>(received_counts_[r] * kBenchRowBytes);
    MPI_Alltoallv(packed_.data(), bytes_.data(), offsets_.data(), MPI_CHAR, received_.data(),
                  received_bytes_.data(), offsets_.data(), MPI_CHAR, MPI_COMM_WORLD);
    if (batch_.reads_rows) Read();
  }

  void Read() {
    uint64_t sum = 0;
    for (size_t i = 0; i < received_.size(); i += sizeof(uint64_t)) {
      uint64_t word = 0;
      std::memcpy(&word, received_.data() + i, sizeof(word));
      sum += word;
    }
    sum_ = sum;
  }

  BenchBatch batch_;
  int64_t num_rows_;
  std::vector<char> tokens_;
  std::vector<char> packed_;
  std::vector<char> received_;
  std::vector<int64_t> order_;
  std::vector<int> bytes_;
  std::vector<int> counts_;
  std::vector<int> received_counts_;
  std::vector<int> offsets_;
  std::vector<int> received_bytes_;
  volatile uint64_t sum_ = 0;
};

}  // namespace wideload
