// A Communicator over point-to-point messages of MPI. None of MPI's own collectives: they cannot
// say who is missing and do not end when somebody dies. Only for mpi_session.cc.
#pragma once

#include <mpi.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "base/wait.h"
#include "comm/communicator.h"
#include "comm/mpi/pulse.h"
#include "comm/peer_lives.h"

namespace wideload::comm {

// What the communicators of a session have in common.
struct MpiShared {
  std::atomic<bool> has_failed = false;  // one of them has lost a peer
  std::atomic<bool> is_ending = false;   // one of them was ended by a rank, and this rank knows
  std::atomic<bool> is_leaving = false;  // this rank has nothing left to do but to end
  PeerLives lives;
  std::mutex mutex;  // guards the rest
  std::set<const Communicator*> places;
  Where last_where;  // of one that is gone

  void AddPlace(const Communicator& group);
  void RemovePlace(const Communicator& group);
};

class MpiCommunicator final : public Communicator {
 public:
  // Takes `members`, the first ranks of all, or of `whole` those of `part`. Collective over
  // members.
  MpiCommunicator(MPI_Comm members, GroupOptions group, MpiShared& shared,
                  Communicator* whole = nullptr, const RankPart& part = {});
  ~MpiCommunicator() override;

  int rank() const override { return rank_; }
  int size() const override { return num_ranks_; }
  const GroupOptions& options() const override { return group_; }
  void Barrier() override;
  void AllGather(std::span<const std::byte> mine, std::span<std::byte> all) override;
  void AllToAll(std::span<const std::byte> mine, std::span<const int64_t> ends,
                std::span<std::byte> all) override;
  void Broadcast(std::span<std::byte> data, int root) override;
  void AllReduceSum(std::span<float> data) override;
  std::shared_ptr<Communicator> MakePart(const RankPart& part) override;
  void Abort(const std::string& reason) override;
  std::optional<AbortReport> Aborted() const override;
  void Beat() override;
  uint32_t BeatsOf(int peer) const override;
  std::atomic<uint32_t>& progress() override {
    return whole() != nullptr ? whole()->progress() : own_progress_;
  }
  uint32_t ProgressOf(int peer) const override;

  // A barrier after a fault: waits for those that live, at most `limit`. Whether all have come.
  bool WaitForTheLiving(std::chrono::milliseconds limit);

  // Messages among the same ranks that do not meet those of this one. The caller frees it.
  // Collective.
  MPI_Comm Duplicate();

 private:
  static constexpr size_t kReasonBytes = 1000;

  // One message of a collective, in memory that stays until MPI is done with it, whatever becomes
  // of the caller's.
  struct Message {
    std::vector<std::byte> bytes;
    MPI_Request request = MPI_REQUEST_NULL;
  };

  void WatchPeers();
  void SendPulses();
  void SendProgress(int peer, int tag, uint32_t& value, MPI_Request& request);
  void Send(int peer, std::span<const std::byte> bytes);
  void Expect(int peer, size_t num_bytes);
  void Await(Message& message, int peer, const char* what);
  void AwaitSends(const char* what);
  bool IsDone(Message& message) const;
  std::span<const std::byte> Received(int peer) const;
  void ReadControl() const;

  MPI_Comm data_;
  MPI_Comm control_ = MPI_COMM_NULL;  // abort texts; beats and pulses: the sender's progress
  GroupOptions group_;
  MpiShared& shared_;
  int rank_ = 0;
  int num_ranks_ = 1;
  bool is_broken_ = false;
  std::vector<Message> sent_;         // [num_ranks]
  std::vector<Message> received_;     // [num_ranks]
  std::vector<const float*> pieces_;  // [num_ranks]
  std::vector<float> sums_;
  std::vector<float> block_;
  std::atomic<uint32_t> own_progress_{0};
  mutable PulseCounts pulse_counts_;

  mutable std::mutex control_mutex_;        // guards the rest
  mutable std::vector<uint32_t> beats_;     // [num_ranks] received
  mutable std::vector<uint32_t> progress_;  // [num_ranks] that the last one said
  std::vector<uint32_t> beat_values_;       // [num_ranks] on their way
  mutable std::optional<AbortReport> abort_;
  std::vector<MPI_Request> beat_requests_;   // [num_ranks]
  std::vector<MPI_Request> abort_requests_;  // [num_ranks]
  std::vector<uint32_t> pulse_values_;       // [num_ranks] on their way
  std::vector<MPI_Request> pulse_requests_;  // [num_ranks]
  std::string abort_text_;

  std::unique_ptr<Pulse> pulse_;  // none: all ranks are on this host
};

}  // namespace wideload::comm
