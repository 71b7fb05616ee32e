// The processes that mpirun started, as the ranks of the conformance suite: each runs all tests, of
// a group of fewer ranks the others wait for its end.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "base/shared_memory.h"
#include "comm/mpi/mpi_session.h"
#include "conformance/communicator_media.h"
#include "support/rank_processes.h"

namespace wideload::comm {
namespace {

struct World {
  MpiSession session;
  std::unique_ptr<Communicator> all = session.MakeCommunicator({});
};
World* world = nullptr;

// The error of a rank that found a fault itself before that of one that was told of it.
RankOutcome OutcomeOfAll(const std::string& found, const std::string& told) {
  RankOutcome outcome;
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

RankOutcome RunMpi(int num_ranks, GroupOptions options, std::function<void(Communicator&)> body) {
  std::string found;
  std::string told;
  const auto group = world->session.MakeCommunicator(std::move(options), num_ranks);
  if (group) {
    try {
      body(*group);
    } catch (const PeerLost& lost) {
      (lost.details().is_told ? told : found) = lost.what();
      group->Abort(lost.what());
    } catch (const Error& error) {
      found = error.what();
      group->Abort(error.what());
    }
  }
  return OutcomeOfAll(found, told);
}

// Counters of the tests in memory that all processes of this host map.
SharedMemory ShareCounters() {
  std::array<char, 64> job{};
  const std::string own = fmt::format("conformance-{}", ::getpid());
  own.copy(job.data(), job.size() - 1);
  world->all->Broadcast(std::as_writable_bytes(std::span(job)), 0);
  const SegmentName name{.job = job.data(), .name = "counters"};
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

const std::vector<CommunicatorMedium>& CommunicatorMedia() {
  static const std::vector<CommunicatorMedium> media = {
      {.name = "mpi", .run = RunMpi, .max_ranks = world->session.size()}};
  return media;
}

int RunAll(int argc, char** argv) {
  World here;
  world = &here;
  const SharedMemory counters = ShareCounters();
  SharedCounter::TakeFrom(counters.bytes());
  testing::InitGoogleTest(&argc, argv);
  if (here.session.rank() != 0) GTEST_FLAG_SET(brief, true);
  return RUN_ALL_TESTS();
}

}  // namespace wideload::comm

int main(int argc, char** argv) { return wideload::comm::RunAll(argc, argv); }
