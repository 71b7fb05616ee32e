// Dispatch and return between P processes against pack + MPI_Alltoall of counts + MPI_Alltoallv in
// the same processes, in turns. Under mpirun or srun it measures; started alone it starts itself
// under mpirun for each number of ranks. Both sides are timed as whole loops, as in bench_exchange.
#include <mpi.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "bench/bench_timing.h"
#include "bench/exchange_rank.h"
#include "bench/mpi_alltoall.h"
#include "comm/mpi/launch.h"
#include "comm/mpi/mpi_session.h"
#include "exchange/make_fabric.h"

namespace wideload {
namespace {

using bench::Median;

struct Options {
  std::vector<int> ranks = {2, 4, 8};
  std::vector<int64_t> rows = {1, 64};
  int num_pairs = 11;
  double batch_ms = 60;
};

std::string LineOf(const char* path, const std::string& key) {
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);)
    if (line.rfind(key, 0) == 0)
      return line.substr(line.find(':') == std::string::npos ? 0 : line.find(':') + 2);
  return "unknown";
}

// Microseconds per iteration on rank 0, the same on all ranks.
template <class Iterate>
double Time(comm::Communicator& group, int64_t iterations, Iterate&& iterate) {
  for (int64_t i = 0; i < std::max<int64_t>(2, iterations / 10); ++i) iterate();
  group.Barrier();
  const auto start = std::chrono::steady_clock::now();
  for (int64_t i = 0; i < iterations; ++i) iterate();
  group.Barrier();
  const std::chrono::duration<double, std::micro> elapsed =
      std::chrono::steady_clock::now() - start;
  double us = elapsed.count() / static_cast<double>(iterations);
  group.Broadcast(std::as_writable_bytes(std::span(&us, 1)), 0);
  return us;
}

struct Series {
  std::vector<double> own_us;
  std::vector<double> mpi_us;
};

// Pairs of batches in turns. Collective.
Series Measure(comm::Communicator& group, exchange::Fabric& fabric, const BenchBatch& batch,
               const Options& options) {
  ExchangeRank own(batch, fabric, group);
  MpiAllToAll mpi(batch, group.rank(), group.size());
  const auto run_own = [&] { own.Iterate(); };
  const auto run_mpi = [&] { mpi.Iterate(); };
  const auto iterations = [&](double us) {
    return std::clamp<int64_t>(static_cast<int64_t>(options.batch_ms * 1000 / us), 3, 100'000);
  };
  const int64_t own_iterations =
      iterations(std::min(Time(group, 20, run_own), Time(group, 20, run_own)));
  const int64_t mpi_iterations =
      iterations(std::min(Time(group, 20, run_mpi), Time(group, 20, run_mpi)));
  Series series;
  for (int pair = 0; pair < options.num_pairs; ++pair) {
    series.own_us.push_back(Time(group, own_iterations, run_own));
    series.mpi_us.push_back(Time(group, mpi_iterations, run_mpi));
  }
  return series;
}

void Print(const comm::Communicator& group, const BenchBatch& batch, const Series& series) {
  if (group.rank() != 0) return;
  std::vector<double> ratios;
  for (size_t i = 0; i < series.own_us.size(); ++i)
    ratios.push_back(series.own_us[i] / series.mpi_us[i]);
  std::printf("%2d  %6.0f KB  %-17s %10.1f %10.1f %10.1f %10.1f   %5.2f  [%4.2f - %4.2f]\n",
              group.size(), static_cast<double>(batch.rows_per_peer * kBenchRowBytes) / 1000,
              batch.with_return ? "dispatch + return" : "dispatch", Median(series.own_us),
              *std::min_element(series.own_us.begin(), series.own_us.end()), Median(series.mpi_us),
              *std::min_element(series.mpi_us.begin(), series.mpi_us.end()), Median(ratios),
              *std::min_element(ratios.begin(), ratios.end()),
              *std::max_element(ratios.begin(), ratios.end()));
  std::fflush(stdout);
}

void RunRank(const Options& options) {
  comm::MpiSession session;
  const auto group = session.MakeCommunicator({});
  for (const int64_t rows_per_peer : options.rows) {
    std::array<char, 64> job{};
    const std::string own_job = fmt::format("bench-{}-{}", ::getpid(), rows_per_peer);
    own_job.copy(job.data(), job.size() - 1);
    group->Broadcast(std::as_writable_bytes(std::span(job)), 0);
    const auto made = exchange::MakeFabric(
        *group, {.segment_bytes = SegmentBytes(BenchShape(group->size(), rows_per_peer)),
                 .place = {.job = job.data()}});
    if (rows_per_peer == options.rows.front() && group->rank() == 0)
      std::printf("# %s, load %s\n", made.text.c_str(), LineOf("/proc/loadavg", "").c_str());
    for (const bool with_return : {false, true}) {
      // Between hosts results travel in every round, written or not.
      if (!with_return && made.hosts.num_hosts > 1) continue;
      const BenchBatch batch{.rows_per_peer = rows_per_peer, .with_return = with_return};
      Print(*group, batch, Measure(*group, *made.fabric, batch, options));
    }
  }
}

// More ranks than cores, as root or not: without these Open MPI refuses, binds or spins.
void SetMpiEnvironment() {
  for (const char* name : {"OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM",
                           "OMPI_MCA_rmaps_base_oversubscribe", "OMPI_MCA_mpi_yield_when_idle"})
    ::setenv(name, "1", 1);
  ::setenv("OMPI_MCA_hwloc_base_binding_policy", "none", 1);
}

int RunUnderMpirun(const Options& options, char** argv) {
  std::printf("machine: %s, %ld cores\n%s; us per iteration of %d pairs of batches in turns\n",
              LineOf("/proc/cpuinfo", "model name").c_str(), ::sysconf(_SC_NPROCESSORS_ONLN),
              comm::MpiVersion().c_str(), options.num_pairs);
  std::printf(
      " P   per peer  what               own median       best  MPI median       best  ratio  "
      "[min - max]\n");
  std::fflush(stdout);
  SetMpiEnvironment();
  for (const int num_ranks : options.ranks) {
    const std::string count = std::to_string(num_ranks);
    std::vector<char*> command = {const_cast<char*>("mpirun"), const_cast<char*>("-n"),
                                  const_cast<char*>(count.c_str())};
    for (char** arg = argv; *arg != nullptr; ++arg) command.push_back(*arg);
    command.push_back(nullptr);
    const pid_t pid = ::fork();
    if (pid == 0) {
      ::execvp("mpirun", command.data());
      std::_Exit(127);
    }
    int status = 0;
    if (pid < 0 || ::waitpid(pid, &status, 0) != pid || status != 0)
      Throw(ErrorKind::kRunFailed, "mpirun of {} ranks failed", num_ranks);
  }
  return 0;
}

}  // namespace
}  // namespace wideload

int main(int argc, char** argv) {
  CLI::App app("dispatch and return between processes against MPI_Alltoallv");
  wideload::Options options;
  app.add_option("--ranks", options.ranks, "numbers of ranks, when started alone")
      ->check(CLI::Range(1, 64));
  app.add_option("--rows-per-peer", options.rows, "rows of 14336 bytes per pair of ranks")
      ->check(CLI::Range(1, 4096));
  app.add_option("--pairs", options.num_pairs, "interleaved pairs")->check(CLI::Range(1, 1000));
  app.add_option("--batch-ms", options.batch_ms, "time of one batch")->check(CLI::Range(1, 10000));
  CLI11_PARSE(app, argc, argv);
  try {
    const auto variable = [](const char* name) { return std::getenv(name); };
    if (wideload::comm::DetectLaunch(variable) != wideload::comm::Launch::kMpi)
      return wideload::RunUnderMpirun(options, argv);
    wideload::RunRank(options);
  } catch (const wideload::Error& error) {
    std::fprintf(stderr, "bench_exchange_processes: %s\n", error.what());
    return wideload::ExitCode(error.kind());
  }
  return 0;
}
