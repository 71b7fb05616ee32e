// One MPI rank of bench_exchange: reads batches from a fifo of its own, so that it sleeps while the
// other side runs; rank 0 prints microseconds per iteration.
#include <mpi.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <string>

#include "bench/mpi_alltoall.h"

namespace {

using wideload::BenchBatch;
using wideload::MpiAllToAll;

double MicrosecondsPerIteration(const BenchBatch& batch, int rank, int num_ranks) {
  MpiAllToAll exchanger(batch, rank, num_ranks);
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
  BenchBatch batch;
  while (commands >> batch.rows_per_peer >> batch.iterations >> batch.with_return >>
         batch.reads_rows) {
    const double us = MicrosecondsPerIteration(batch, rank, num_ranks);
    if (rank == 0) std::printf("%.4f\n", us);
    std::fflush(stdout);
  }
  MPI_Finalize();
  return 0;
}
