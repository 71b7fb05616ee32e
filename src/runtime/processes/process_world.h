// The processes that mpirun or srun started as the ranks of one run: how they meet, do the steps of
// a start together, connect, and end with the same exit code. MPI only brings them together and to
// their end; what an iteration needs goes through the links. Used by one thread per process.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "comm/hosts.h"
#include "comm/mpi/mpi_session.h"
#include "runtime/processes/agreement.h"
#include "runtime/processes/process_team.h"

namespace wideload::runtime {

class ProcessWorld {
 public:
  // Starts MPI and meets the others; only where comm::DetectLaunch says kMpi. Removes the shared
  // memory that dead runs have left. Collective. `parts`: as MpiSession's; each is then a world of
  // its own. Errors: as MpiSession.
  explicit ProcessWorld(std::span<const int32_t> parts = {});
  // Collective unless the run has failed. Then it also removes what dead ranks have left.
  ~ProcessWorld();
  ProcessWorld(const ProcessWorld&) = delete;
  ProcessWorld& operator=(const ProcessWorld&) = delete;

  int rank() const { return mpi_.rank(); }
  int size() const { return mpi_.size(); }
  bool is_leader() const { return rank() == 0; }
  // Those on this host, ascending.
  std::vector<int> ranks_here() const;
  // Among the processes of this host.
  int local_rank() const { return mpi_.local_rank(); }
  int local_size() const { return mpi_.local_size(); }
  // Of this process's host among those of the run.
  int host() const { return hosts_.host_of_rank[static_cast<size_t>(rank())]; }
  // This host's cores that its ranks may use, those of all parts, divided by them; at least 1.
  int cores_per_rank() const { return cores_per_rank_; }

  // --- Parts: all but the last are called once, at the start, by all ranks of all parts.
  // Which one this is; -1: the world is not divided.
  int part() const { return mpi_.part(); }
  // Whether this is the one that speaks for all parts: the first one's leader.
  bool leads_all() const { return is_leader() && part() <= 0; }
  // As Together, of all parts.
  void TogetherWithAllParts(const std::function<void()>& work);
  // all: value of each rank of all parts.
  template <class T>
  std::vector<T> GatherOfAllParts(const T& value) {
    std::vector<T> all(static_cast<size_t>(all_parts_->size()));
    all_parts_->AllGatherValue(value, std::span<T>(all));
    return all;
  }
  // From now on the parts have nothing to do with each other, and one may outlive another.
  void LeaveOtherParts() { all_parts_.reset(); }
  // In the end, of the leader, before End: whether all other parts end as they should. MPI is left
  // as it is where they do not.
  void NoteOtherParts(bool end_well) { do_others_end_well_ = end_well; }

  // --- Phases. Rank 0 leads; the others wait for what comes next.
  // Of rank 0: the others leave NextPhase and take part in a session.
  void BeginSession();
  // Of the others: nothing when a session begins, the exit code when the run ends.
  std::optional<int> NextPhase();
  // Of rank 0, last: the others end with this exit code, too. Not after a failure, when they end by
  // themselves.
  void End(int exit_code);

  // --- Steps of a session. Collective, in the same order on all ranks.
  // Runs `work` and returns when all ranks have. When it threw on some, all throw what the first of
  // them threw, named by its rank; then has_agreed_to_end(). Errors: that; comm::PeerLost.
  void Together(const std::function<void()>& work);
  // Errors: kInvalid on all ranks when one differs from rank 0.
  void Agree(std::span<const Fact> facts);
  // all [size()]: value of each rank.
  template <class T>
  std::vector<T> Gather(const T& value) {
    std::vector<T> all(static_cast<size_t>(size()));
    meeting_->AllGatherValue(value, std::span<T>(all));
    return all;
  }

  // What connects the ranks of a session; its memory goes with it. `exchange_bytes`: of
  // ExchangeSegmentBytes. Errors: kResource when shared memory does not suffice; comm::PeerLost.
  class Links;
  std::unique_ptr<Links> Connect(const EngineOptions& options, int64_t exchange_bytes);
  // Shared memory of this host that Connect and the engine's start take, all ranks together;
  // `tensor_ranks` of a group share attention.
  int64_t LinkBytes(int64_t exchange_bytes, const parallel::Layout& layout) const;
  // Names the shared memory of this run: no other run of this host has it.
  const std::string& job() const { return job_; }

  // Something has ended this run on this rank: says why, unless this rank has said why already, and
  // nobody is waited for at the end for long.
  void Fail(const std::string& reason);
  bool has_failed() const { return has_failed_; }
  // All ranks threw the same error out of a step: rank 0 tells of it.
  bool has_agreed_to_end() const { return has_agreed_to_end_; }

 private:
  struct Phase;

  void TogetherIn(comm::Communicator& group, const std::function<void()>& work);

  comm::MpiSession mpi_;
  std::unique_ptr<comm::Communicator> meeting_;  // waits as long as the others live
  std::string job_;
  comm::Hosts hosts_;
  int cores_per_rank_ = 1;
  bool has_failed_ = false;
  bool has_agreed_to_end_ = false;
  std::unique_ptr<comm::Communicator> all_parts_;  // null: the world is not divided, or has begun
  bool do_others_end_well_ = true;
};

// What Connect makes.
class ProcessWorld::Links {
 public:
  // See Connect.
  Links(ProcessWorld& world, const EngineOptions& options, int64_t exchange_bytes);
  ~Links();

  RankLinks view;
  // How rows travel: "shared memory".
  const std::string& text() const { return text_; }

 private:
  ProcessWorld& world_;
  std::unique_ptr<comm::Communicator> group_;
  std::unique_ptr<exchange::Fabric> exchange_;
  std::unique_ptr<exchange::Fabric> orders_;
  std::string text_;
};

}  // namespace wideload::runtime
