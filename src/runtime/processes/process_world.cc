#include "runtime/processes/process_world.h"

#include <malloc.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <random>

#include "base/error.h"
#include "base/log.h"
#include "base/process.h"
#include "base/shared_memory.h"
#include "comm/shm/shm_communicator.h"
#include "exchange/make_fabric.h"

namespace wideload::runtime {
namespace {

// Rank 0 may be asked by a person and the others may read weights for minutes; who dies is noticed
// all the same.
constexpr std::chrono::hours kPatient{24 * 365};

struct JobName {
  std::array<char, 64> text{};
};

JobName NewJobName() {
  std::random_device random;
  JobName job;
  fmt::format_to_n(job.text.data(), job.text.size() - 1, "run-{}-{:08x}{:08x}", ::getpid(),
                   random(), random());
  return job;
}

cpu_set_t ThisProcessCores() {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  ::sched_getaffinity(0, sizeof(cores), &cores);
  return cores;
}

// Of the host of `rank`. mpirun may have bound each rank to cores of its own, or none.
int CoresPerRank(std::span<const cpu_set_t> cores, const comm::Hosts& hosts, int rank) {
  cpu_set_t together;
  CPU_ZERO(&together);
  for (size_t r = 0; r < cores.size(); ++r)
    if (hosts.AreTogether(rank, static_cast<int>(r))) CPU_OR(&together, &together, &cores[r]);
  return std::max(1, CPU_COUNT(&together) / hosts.LocalSize(rank));
}

// How it ended.
Outcome Try(const std::function<void()>& work) {
  try {
    work();
    return {};
  } catch (const comm::PeerLost& lost) {
    return {true, lost.details().is_told, lost.kind(), lost.what()};
  } catch (const Error& error) {
    return {true, false, error.kind(), error.what()};
  } catch (const std::exception& error) {
    return {true, false, ErrorKind::kRunFailed, error.what()};
  }
}

// The pieces of AllGatherV, each a vector of its own and so aligned for a ByteReader.
std::vector<std::vector<std::byte>> GatherPieces(comm::Communicator& group,
                                                 std::span<const std::byte> mine) {
  std::vector<std::byte> all;
  std::vector<int64_t> offsets;
  group.AllGatherV(mine, all, offsets);
  std::vector<std::vector<std::byte>> pieces;
  for (size_t r = 0; r + 1 < offsets.size(); ++r)
    pieces.emplace_back(all.begin() + offsets[r], all.begin() + offsets[r + 1]);
  return pieces;
}

}  // namespace

struct ProcessWorld::Phase {
  int32_t is_end = 0;
  int32_t exit_code = 0;
  int32_t do_others_end_well = 1;
};

ProcessWorld::ProcessWorld(std::span<const int32_t> parts)
    : mpi_(parts), all_parts_(mpi_.MeetAllParts()) {
  meeting_ = mpi_.MakeCommunicator({.deadline = kPatient});
  JobName job = NewJobName();
  meeting_->Broadcast(std::as_writable_bytes(std::span(&job, 1)), 0);
  job_ = job.text.data();
  hosts_ = comm::FindHosts(*meeting_);
  if (all_parts_ != nullptr)
    cores_per_rank_ = CoresPerRank(GatherOfAllParts(ThisProcessCores()),
                                   comm::FindHosts(*all_parts_), all_parts_->rank());
  else
    cores_per_rank_ = CoresPerRank(Gather(ThisProcessCores()), hosts_, rank());
  if (local_rank() == 0) RemoveDeadSegments();
  mpi_.OnFailure([job = job_](const std::string& reason) {
    std::fprintf(stderr, "%swideload: error: %s\n", LogPrefix().c_str(), reason.c_str());
    std::fflush(stderr);
    RemoveDeadSegments(SegmentName().folder, job);
  });
}

ProcessWorld::~ProcessWorld() {
  all_parts_.reset();
  if ((!do_others_end_well_ && !has_agreed_to_end_) || has_failed_) mpi_.ForgetOtherParts();
  if (!has_failed_) return;
  mpi_.NoteFault();
  // Each of the survivors, as the launcher may end the others before they come here.
  RemoveDeadSegments(SegmentName().folder, job_);
}

void ProcessWorld::BeginSession() {
  Phase phase;
  meeting_->Broadcast(std::as_writable_bytes(std::span(&phase, 1)), 0);
}

std::optional<int> ProcessWorld::NextPhase() {
  Phase phase;
  meeting_->Broadcast(std::as_writable_bytes(std::span(&phase, 1)), 0);
  if (phase.is_end == 0) return std::nullopt;
  do_others_end_well_ = phase.do_others_end_well != 0;
  return phase.exit_code;
}

void ProcessWorld::End(int exit_code) {
  if (has_failed_ || has_agreed_to_end_) return;
  Phase phase{.is_end = 1, .exit_code = exit_code, .do_others_end_well = do_others_end_well_};
  try {
    meeting_->Broadcast(std::as_writable_bytes(std::span(&phase, 1)), 0);
  } catch (const comm::PeerLost& lost) {
    Fail(lost.what());
  }
}

void ProcessWorld::Together(const std::function<void()>& work) { TogetherIn(*meeting_, work); }

void ProcessWorld::TogetherWithAllParts(const std::function<void()>& work) {
  TogetherIn(*all_parts_, work);
}

void ProcessWorld::TogetherIn(comm::Communicator& group, const std::function<void()>& work) {
  const Outcome mine = Try(work);
  std::optional<size_t> first;
  std::vector<Outcome> outcomes;
  for (const auto& piece : GatherPieces(group, PackOutcome(mine)))
    outcomes.push_back(UnpackOutcome(piece));
  for (const bool is_told : {false, true})
    for (size_t r = 0; r < outcomes.size() && !first; ++r)
      if (outcomes[r].has_failed && outcomes[r].is_told == is_told) first = r;
  if (!first) return;
  has_agreed_to_end_ = true;
  const Outcome& failure = outcomes[*first];
  throw Error(failure.kind,
              *first == 0 ? failure.text : fmt::format("rank {}: {}", *first, failure.text));
}

void ProcessWorld::Agree(std::span<const Fact> facts) {
  std::vector<std::vector<Fact>> all;
  for (const auto& piece : GatherPieces(*meeting_, PackFacts(facts)))
    all.push_back(UnpackFacts(piece));
  Together([&] {
    const std::string difference = FirstDifference(all);
    if (!difference.empty()) Throw(ErrorKind::kInvalid, "{}", difference);
  });
}

void ProcessWorld::Fail(const std::string& reason) {
  has_failed_ = true;
  mpi_.Fail(reason);
}

std::vector<int> ProcessWorld::ranks_here() const {
  std::vector<int> ranks;
  for (int r = 0; r < size(); ++r)
    if (hosts_.AreTogether(rank(), r)) ranks.push_back(r);
  return ranks;
}

int64_t ProcessWorld::LinkBytes(int64_t exchange_bytes, const parallel::Layout& layout) const {
  const int64_t num_parts = (layout.tp > 1 ? 1 : 0) + (layout.cp > 1 ? 1 : 0) +
                            (layout.moe_tp > 1 ? 1 : 0) + (layout.pp > 1 ? 3 : 0);
  const int64_t group_bytes =
      num_parts * comm::ShmCommunicator::SegmentBytes(1, comm::ShmCommunicator::kPartMailboxBytes);
  return local_size() * (exchange_bytes + MessageChannel::SegmentBytes(size()) +
                         2 * comm::ShmGroupOptions().mailbox_bytes + group_bytes);
}

std::unique_ptr<ProcessWorld::Links> ProcessWorld::Connect(const EngineOptions& options,
                                                           int64_t exchange_bytes) {
  return std::make_unique<Links>(*this, options, exchange_bytes);
}

ProcessWorld::Links::Links(ProcessWorld& world, const EngineOptions& options,
                           int64_t exchange_bytes)
    : world_(world) {
  const int threads = world.local_size() * options.threads_per_rank;
  comm::GroupOptions group{.total_threads = threads, .deadline = options.deadline};
  if (world.hosts_.num_hosts > 1) {
    group_ = world.mpi_.MakeCommunicator(group);
  } else {
    group.is_alive = world.meeting_->options().is_alive;  // also while ranks join
    group.first_dead = world.meeting_->options().first_dead;
    group_ = std::make_unique<comm::ShmCommunicator>(
        comm::ShmGroupOptions{.job = world.job(), .rank = world.rank(), .num_ranks = world.size()},
        group);
  }
  const auto make_fabric = [&](int64_t num_bytes, const char* name) {
    return exchange::MakeFabric(*group_, {.segment_bytes = num_bytes,
                                          .place = {.job = world.job() + name},
                                          .total_threads = threads});
  };
  orders_ = make_fabric(MessageChannel::SegmentBytes(world.size()), "-orders").fabric;
  if (exchange_bytes > 0) {
    exchange::MadeFabric made = make_fabric(exchange_bytes, "-rows");
    exchange_ = std::move(made.fabric);
    text_ = std::move(made.text);
  }
  world_.mpi_.AddPlace(*group_);
  view = {.group = group_.get(),
          .exchange = exchange_.get(),
          .orders = orders_.get(),
          .host_of_rank = world_.hosts_.host_of_rank};
  ::malloc_trim(0);  // what the start has freed: megabytes, of each process
}

ProcessWorld::Links::~Links() {
  world_.mpi_.RemovePlace(*group_);
  try {
    if (group_->Aborted()) world_.has_failed_ = true;
  } catch (const std::bad_alloc&) {  // there was something to tell
    world_.has_failed_ = true;
  }
}

}  // namespace wideload::runtime
