// A rank of an exchange that kills itself, and what the others say: for tests between hosts. Under
// mpirun: dead_rank VICTIM CALL, or dead_rank VICTIM CALL stop SECONDS: it stops for that time.
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "comm/mpi/mpi_session.h"
#include "exchange/make_fabric.h"
#include "support/mpi_ranks.h"
#include "tests/ranks/exchange_load.h"

namespace wideload::exchange {
namespace {

struct Plan {
  int victim = 0;
  int64_t call = 0;
  int stop_seconds = 0;  // 0: it dies
};

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void Say(int rank, const std::string& what) {
  std::printf("rank %d at %.3f: %s\n", rank, Now(), what.c_str());
  std::fflush(stdout);
}

// A process cannot wake itself: a child does.
void Stop(int seconds) {
  const pid_t self = ::getpid();
  if (::fork() == 0) {
    ::sleep(static_cast<unsigned>(seconds));
    ::kill(self, SIGCONT);
    ::_exit(0);
  }
  ::raise(SIGSTOP);
}

void RunRanks(comm::Communicator& group, const Plan& plan) {
  Load load;
  load.num_ranks = group.size();
  load.max_rows = 4;
  load.num_layers = 40;
  const MadeFabric made = MakeFabric(group, {.segment_bytes = SegmentBytes(ShapeOf(load)),
                                             .place = {.job = CommonJobName(group)}});
  Exchange exchange(ShapeOf(load), *made.fabric, group);
  std::vector<float> values(static_cast<size_t>(load.num_layers * load.num_tokens * load.hidden));
  int64_t num_calls = 0;
  RunRank(load, exchange, group, values, [&](int rank, const char*, int64_t) {
    if (rank != plan.victim || num_calls++ != plan.call) return;
    Say(rank, plan.stop_seconds > 0 ? "stops" : "dies");
    plan.stop_seconds > 0 ? Stop(plan.stop_seconds) : static_cast<void>(::raise(SIGKILL));
  });
  group.Barrier();
}

int Main(const Plan& plan) {
  comm::MpiSession session;
  session.OnFailure([&](const std::string& reason) { Say(session.rank(), reason); });
  const auto group = session.MakeCommunicator({});
  try {
    RunRanks(*group, plan);
  } catch (const comm::PeerLost& lost) {
    session.Fail(lost.what());
    return 1;
  }
  Say(session.rank(), "came to the end");
  return 0;
}

}  // namespace
}  // namespace wideload::exchange

int main(int argc, char** argv) {
  if (argc != 3 && (argc != 5 || std::strcmp(argv[3], "stop") != 0)) {
    std::fprintf(stderr, "usage: dead_rank VICTIM CALL [stop SECONDS]\n");
    return 2;
  }
  return wideload::exchange::Main({.victim = std::atoi(argv[1]),
                                   .call = std::atoi(argv[2]),
                                   .stop_seconds = argc == 5 ? std::atoi(argv[4]) : 0});
}
