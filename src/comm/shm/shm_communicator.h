// Ranks that are processes of one host: collectives over one shared memory segment, with the wait
// ladder of threads. A process that ends is noticed within a wait slice. One per process; threads
// as for Communicator.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/process.h"
#include "base/shared_memory.h"
#include "base/wait.h"
#include "comm/communicator.h"

namespace wideload::comm {

// How the processes of a group find each other.
struct ShmGroupOptions {
  std::string job = {};  // names the group; no other living group of this host has it
  int rank = 0;
  int num_ranks = 1;
  std::string folder = "/dev/shm";
  int64_t mailbox_bytes = 64 << 10;  // what a rank shows at once; longer data goes in pieces
};

class ShmCommunicator final : public Communicator {
 public:
  // Meets the other ranks. Collective: returns when all `num_ranks` processes have joined; nothing
  // of the group has a name afterwards. group.is_alive is asked beside the processes themselves.
  // Memory: shared, num_ranks * (2 * mailbox_bytes + 256) bytes. Errors: kInvalid naming the
  // option; kResource as SharedMemory; kRunFailed when a rank does not come within the deadline or
  // two processes claim one rank.
  ShmCommunicator(const ShmGroupOptions& options, GroupOptions group);
  ~ShmCommunicator() override;

  int rank() const override { return rank_; }
  int size() const override { return num_ranks_; }
  const GroupOptions& options() const override { return group_; }
  void Barrier() override;
  void AllGather(std::span<const std::byte> mine, std::span<std::byte> all) override;
  void AllGatherColumns(const ColumnBlock& block) override;
  void AllToAll(std::span<const std::byte> mine, std::span<const int64_t> ends,
                std::span<std::byte> all) override;
  void Broadcast(std::span<std::byte> data, int root) override;
  void AllReduceSum(std::span<float> data) override;
  std::shared_ptr<Communicator> MakePart(const RankPart& part) override;
  void Abort(const std::string& reason) override;
  std::optional<AbortReport> Aborted() const override;
  void Beat() override;
  uint32_t BeatsOf(int peer) const override;
  std::atomic<uint32_t>& progress() override;
  uint32_t ProgressOf(int peer) const override;

  // Shared memory of a group.
  static int64_t SegmentBytes(int num_ranks, int64_t mailbox_bytes);
  // Mailboxes of parts: what travels in them are activations.
  static constexpr int64_t kPartMailboxBytes = 256 << 10;

 private:
  struct Control;  // what lies in the segment: of the group
  struct Place;    // and of each rank

  ShmCommunicator(const ShmGroupOptions& options, GroupOptions group, Communicator* whole,
                  const RankPart& part);
  void Make(const ShmGroupOptions& options);
  void AttachTo(const ShmGroupOptions& options);
  void Join();
  void WatchPeers();
  Control& control() const;
  Place& place(int rank) const;
  std::byte* mailbox(int rank) const;  // [mailbox_bytes]
  float* sums(int rank) const;         // [mailbox_bytes / 4]
  std::byte* half(int rank) const;     // one of these two, in turns
  void Settle();
  void Step();
  void Await(int peer, const char* what);
  void AwaitAll(const char* what);
  void ReducePiece(std::span<float> data);

  ShmGroupOptions options_;
  GroupOptions group_;
  int rank_;
  int num_ranks_;
  int64_t mailbox_bytes_;
  WaitLadder ladder_;
  SharedMemory memory_;
  std::vector<ProcessWatch> watches_;  // [num_ranks]
  std::vector<const float*> pieces_;   // [num_ranks]
  std::vector<float> block_;
  uint32_t step_ = 0;
  int num_parts_ = 0;
  bool is_second_half_ = false;  // what AllGatherColumns shows next
  bool is_read_ = true;          // by all: what it has shown last
};

}  // namespace wideload::comm
