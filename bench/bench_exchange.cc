// Dispatch and return between P ranks (threads of one process) against pack + MPI_Alltoall of
// counts + MPI_Alltoallv between P MPI processes, in turns on the same machine.
//
// Both sides are timed as whole loops. Ours holds the counts of all experts from all ranks, the
// gather by index, the rows, the index by slot and, also where nothing but dispatch is measured,
// the flags of the way back, without which a round cannot end.
#include "bench/bench_exchange.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>

#include "bench/bench_timing.h"
#include "bench/exchange_rank.h"
#include "comm/local/rank_threads.h"
#include "exchange/local_fabric.h"

namespace wideload {
namespace {

using bench::Median;

// Our side; segments are made once, as in a server.
class OwnSide {
 public:
  OwnSide(int num_ranks, int64_t rows_per_peer)
      : num_ranks_(num_ranks),
        fabrics_(num_ranks, SegmentBytes(BenchShape(num_ranks, rows_per_peer))) {}

  double Run(const BenchBatch& batch) {
    comm::LocalGroup group(num_ranks_, {});
    double us = 0;
    const comm::RankOutcome outcome = comm::RunRanks(group, [&](comm::Communicator& communicator) {
      ExchangeRank rank(batch, fabrics_.rank(communicator.rank()), communicator);
      for (int64_t i = 0; i < std::max<int64_t>(2, batch.iterations / 10); ++i) rank.Iterate();
      communicator.Barrier();
      const auto start = std::chrono::steady_clock::now();
      for (int64_t i = 0; i < batch.iterations; ++i) rank.Iterate();
      communicator.Barrier();
      const std::chrono::duration<double, std::micro> elapsed =
          std::chrono::steady_clock::now() - start;
      if (communicator.rank() == 0) us = elapsed.count() / static_cast<double>(batch.iterations);
    });
    if (!outcome.ok()) Throw(ErrorKind::kRunFailed, "{}", outcome.error);
    return us;
  }

 private:
  int num_ranks_;
  exchange::LocalFabrics fabrics_;
};

struct Options {
  int num_pairs = 11;
  double batch_ms = 60;
  bool reads_rows = false;
};

// The bound of the project for these sizes, as text; empty where none is set.
std::string GoalOf(int num_ranks, int64_t rows_per_peer, bool with_return) {
  if (with_return) return "";
  if (num_ranks == 2) return rows_per_peer == 1 ? "0.5" : "0.8";
  return num_ranks == 8 ? "0.8" : "";
}

// Iterations of one side that take about batch_ms; the best of a few tries, because a first one
// meets cold memory.
template <class Side>
BenchBatch Sized(Side& side, BenchBatch batch, double batch_ms) {
  double best = 1e9;
  for (const int64_t iterations : {10, 50, 50, 50}) {
    batch.iterations = iterations;
    best = std::min(best, side.Run(batch));
  }
  batch.iterations =
      std::clamp<int64_t>(static_cast<int64_t>(batch_ms * 1000 / best), 5, 1'000'000);
  return batch;
}

void Compare(MpiPeer& mpi, int num_ranks, const BenchBatch& batch, const Options& options) {
  OwnSide own(num_ranks, batch.rows_per_peer);
  const BenchBatch own_batch = Sized(own, batch, options.batch_ms);
  const BenchBatch mpi_batch = Sized(mpi, batch, options.batch_ms);
  std::vector<double> own_us;
  std::vector<double> mpi_us;
  std::vector<double> ratios;
  for (int pair = 0; pair < options.num_pairs; ++pair) {
    own_us.push_back(own.Run(own_batch));
    mpi_us.push_back(mpi.Run(mpi_batch));
    ratios.push_back(own_us.back() / mpi_us.back());
  }
  const std::string goal = GoalOf(num_ranks, batch.rows_per_peer, batch.with_return);
  std::printf("%2d  %6.0f KB  %-17s %10.1f %10.1f %10.1f %10.1f   %5.2f  [%4.2f - %4.2f]  %s\n",
              num_ranks, static_cast<double>(batch.rows_per_peer * kBenchRowBytes) / 1000,
              batch.with_return ? "dispatch + return" : "dispatch", Median(own_us),
              *std::min_element(own_us.begin(), own_us.end()), Median(mpi_us),
              *std::min_element(mpi_us.begin(), mpi_us.end()), Median(ratios),
              *std::min_element(ratios.begin(), ratios.end()),
              *std::max_element(ratios.begin(), ratios.end()), goal.c_str());
  std::fflush(stdout);
}

std::string LineOf(const char* path, const std::string& key) {
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);)
    if (line.rfind(key, 0) == 0)
      return line.substr(line.find(':') == std::string::npos ? 0 : line.find(':') + 2);
  return "unknown";
}

void Run(const std::vector<int>& ranks, const std::vector<int64_t>& rows, const Options& options) {
  std::printf("machine: %s, %ld cores, load %s\n", LineOf("/proc/cpuinfo", "model name").c_str(),
              ::sysconf(_SC_NPROCESSORS_ONLN), LineOf("/proc/loadavg", "").c_str());
  bool is_first = true;
  for (const int num_ranks : ranks) {
    MpiPeer mpi(num_ranks);
    if (std::exchange(is_first, false)) {
      std::printf(
          "%s, one process per rank, against threads of one process; us per iteration of "
          "%d pairs of batches in turns; received rows are %s\n",
          mpi.version().c_str(), options.num_pairs,
          options.reads_rows ? "read once on both sides" : "not read");
      std::printf(
          " P   per peer  what               own median       best  MPI median       best  "
          " ratio  [min - max]    goal\n");
    }
    for (const int64_t rows_per_peer : rows)
      for (const bool with_return : {false, true})
        Compare(mpi, num_ranks,
                {.rows_per_peer = rows_per_peer,
                 .with_return = with_return,
                 .reads_rows = options.reads_rows},
                options);
  }
  std::printf("load at the end: %s\n", LineOf("/proc/loadavg", "").c_str());
}

}  // namespace
}  // namespace wideload

int main(int argc, char** argv) {
  CLI::App app("dispatch and return against MPI_Alltoallv");
  wideload::Options options;
  std::vector<int> ranks = {2, 4, 8};
  std::vector<int64_t> rows = {1, 64};
  app.add_option("--ranks", ranks, "numbers of ranks")->check(CLI::Range(1, 64));
  app.add_option("--rows-per-peer", rows, "rows of 14336 bytes per pair of ranks")
      ->check(CLI::Range(1, 4096));
  app.add_option("--pairs", options.num_pairs, "interleaved pairs")->check(CLI::Range(1, 1000));
  app.add_option("--batch-ms", options.batch_ms, "time of one batch")->check(CLI::Range(1, 10000));
  app.add_flag("--read", options.reads_rows, "receivers read their rows once");
  CLI11_PARSE(app, argc, argv);
  try {
    wideload::Run(ranks, rows, options);
  } catch (const wideload::Error& error) {
    std::fprintf(stderr, "bench_exchange: %s\n", error.what());
    return wideload::ExitCode(error.kind());
  }
  return 0;
}
