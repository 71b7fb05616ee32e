#include "support/mpi_ranks.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "base/shared_memory.h"
#include "comm/mpi/mpi_session.h"
#include "support/rank_processes.h"

namespace wideload {
namespace {

// Waits until the ranks of a test are through it, however long that takes.
struct World {
  comm::MpiSession session;
  std::unique_ptr<comm::Communicator> all =
      session.MakeCommunicator({.deadline = std::chrono::hours(1)});
};
World* world = nullptr;

int Variable(const char* first, const char* second) {
  for (const char* name : {first, second})
    if (const char* value = std::getenv(name)) return std::atoi(value);
  return 0;
}

// Before MPI starts, so from what the launcher says.
void PretendHosts(int num_hosts) {
  const int rank = Variable("OMPI_COMM_WORLD_RANK", "PMI_RANK");
  const int size = Variable("OMPI_COMM_WORLD_SIZE", "PMI_SIZE");
  WIDELOAD_CHECK(size > 0 && num_hosts <= size, "{} processes cannot be {} hosts", size, num_hosts);
  const std::string host = fmt::format("test-host-{}", rank * num_hosts / size);
  ::setenv("WIDELOAD_HOST_ID", host.c_str(), 1);
}

// The error of a rank that found a fault itself before that of one that was told of it.
comm::RankOutcome OutcomeOfAll(const std::string& found, const std::string& told) {
  comm::RankOutcome outcome;
  for (const std::string& mine : {found, told}) {
    std::vector<std::byte> all;
    std::vector<int64_t> offsets;
    world->all->AllGatherV(std::as_bytes(std::span(mine)), all, offsets);
    for (size_t r = 0; r + 1 < offsets.size() && outcome.error.empty(); ++r)
      outcome.error.assign(reinterpret_cast<const char*>(all.data()) + offsets[r],
                           static_cast<size_t>(offsets[r + 1] - offsets[r]));
  }
  return outcome;
}

// Counters of the tests in memory that all processes map.
SharedMemory ShareCounters() {
  const char* const folder = std::getenv("WIDELOAD_TEST_FOLDER");
  const SegmentName name{.job = CommonJobName(*world->all),
                         .name = "counters",
                         .folder = folder == nullptr ? "/dev/shm" : folder};
  constexpr int64_t kBytes = 1 << 16;
  SharedMemory memory;
  if (world->all->rank() == 0) memory = SharedMemory::Create(name, kBytes);
  world->all->Barrier();
  if (world->all->rank() != 0) memory = SharedMemory::Attach(name);
  world->all->Barrier();
  memory.Unlink();
  return memory;
}

}  // namespace

int NumMpiRanks() { return world->session.size(); }

comm::RankOutcome RunMpiRanks(int num_ranks, comm::GroupOptions options,
                              const std::function<void(comm::Communicator&)>& body) {
  std::string found;
  std::string told;
  const auto group = world->session.MakeCommunicator(std::move(options), num_ranks);
  if (group) {
    try {
      body(*group);
    } catch (const comm::PeerLost& lost) {
      (lost.details().is_told ? told : found) = lost.what();
      group->Abort(lost.what());
    } catch (const Error& error) {
      found = error.what();
      group->Abort(error.what());
    }
  }
  return OutcomeOfAll(found, told);
}

std::string CommonJobName(comm::Communicator& group) {
  std::array<char, 64> job{};
  const std::string own = FreshJobName();
  own.copy(job.data(), job.size() - 1);
  group.Broadcast(std::as_writable_bytes(std::span(job)), 0);
  return job.data();
}

int RunMpiTests(int argc, char** argv) {
  if (argc > 2 && std::strcmp(argv[1], "--hosts") == 0) {
    const int num_hosts = std::atoi(argv[2]);
    if (num_hosts > 1) PretendHosts(num_hosts);
    argv[2] = argv[0];
    argc -= 2;
    argv += 2;
  }
  World here;
  world = &here;
  const SharedMemory counters = ShareCounters();
  SharedCounter::TakeFrom(counters.bytes());
  testing::InitGoogleTest(&argc, argv);
  if (here.session.rank() != 0) GTEST_FLAG_SET(brief, true);
  return RUN_ALL_TESTS();
}

}  // namespace wideload
