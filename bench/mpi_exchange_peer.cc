// One MPI rank of bench_exchange: reads batches from a fifo of its own, so that it sleeps while the
// other side runs; rank 0 prints microseconds per iteration.
#include <mpi.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <numeric>
#include <random>
#include <string>
#include <vector>

namespace {

constexpr int64_t kRowBytes = 14'336;

struct Batch {
  int64_t rows_per_peer = 0;
  int64_t iterations = 0;
  int with_return = 0;
  int reads_rows = 0;
};

class Exchanger {
 public:
  Exchanger(const Batch& batch, int rank, int num_ranks)
      : batch_(batch),
        num_rows_(batch.rows_per_peer * num_ranks),
        tokens_(static_cast<size_t>(num_rows_ * kRowBytes), static_cast<char>(rank)),
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
    std::fill(bytes_.begin(), bytes_.end(), static_cast<int>(batch.rows_per_peer * kRowBytes));
    for (size_t r = 0; r < offsets_.size(); ++r)
      offsets_[r] = static_cast<int>(static_cast<int64_t>(r) * batch.rows_per_peer * kRowBytes);
  }

  void Iterate() {
    AllToAll(tokens_);
    if (batch_.with_return != 0) AllToAll(received_);
  }

 private:
  // Gather by index, counts, rows.
  void AllToAll(const std::vector<char>& rows) {
    for (int64_t i = 0; i < num_rows_; ++i)
      std::memcpy(packed_.data() + i * kRowBytes,
                  rows.data() + order_[static_cast<size_t>(i)] * kRowBytes,
                  static_cast<size_t>(kRowBytes));
    MPI_Alltoall(counts_.data(), 1, MPI_INT, received_counts_.data(), 1, MPI_INT, MPI_COMM_WORLD);
    for (size_t r = 0; r < received_counts_.size(); ++r)
      received_bytes_[r] = static_cast<int>(received_counts_[r] * kRowBytes);
    MPI_Alltoallv(packed_.data(), bytes_.data(), offsets_.data(), MPI_CHAR, received_.data(),
                  received_bytes_.data(), offsets_.data(), MPI_CHAR, MPI_COMM_WORLD);
    if (batch_.reads_rows != 0) Read();
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

  Batch batch_;
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

double MicrosecondsPerIteration(const Batch& batch, int rank, int num_ranks) {
  Exchanger exchanger(batch, rank, num_ranks);
  for (int64_t i = 0; i < std::max<int64_t>(2, batch.iterations / 10); ++i) exchanger.Iterate();
  MPI_Barrier(MPI_COMM_WORLD);
  const double start = MPI_Wtime();
  for (int64_t i = 0; i < batch.iterations; ++i) exchanger.Iterate();
  MPI_Barrier(MPI_COMM_WORLD);
  return (MPI_Wtime() - start) * 1e6 / static_cast<double>(batch.iterations);
}

}  // namespace

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int rank = 0;
  int num_ranks = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &num_ranks);
  std::ifstream commands(std::string(argv[1]) + "/" + std::to_string(rank));
  if (rank == 0) {
    char version[MPI_MAX_LIBRARY_VERSION_STRING];
    int length = 0;
    MPI_Get_library_version(version, &length);
    *std::find(version, version + length, ',') = '\0';
    std::printf("%s\n", version);
    std::fflush(stdout);
  }
  Batch batch;
  while (commands >> batch.rows_per_peer >> batch.iterations >> batch.with_return >>
         batch.reads_rows) {
    const double us = MicrosecondsPerIteration(batch, rank, num_ranks);
    if (rank == 0) std::printf("%.4f\n", us);
    std::fflush(stdout);
  }
  MPI_Finalize();
  return 0;
}
