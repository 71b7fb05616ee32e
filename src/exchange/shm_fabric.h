// A Fabric for ranks that are processes of one host: each rank's segment is shared memory that all
// of them map. Used as Fabric says.
#pragma once

#include <string>
#include <vector>

#include "base/shared_memory.h"
#include "comm/communicator.h"
#include "exchange/fabric.h"

namespace wideload::exchange {

class ShmFabric final : public Fabric {
 public:
  // Makes this rank's segment and maps those of the others; no segment has a name afterwards.
  // Collective over `group`, which is only used here; all its ranks must be on this host.
  // `job` names the segments while they are made; no other living job of this host has it.
  // `total_threads` as in LocalFabrics. Memory: shared, segment_bytes per rank, reserved
  // near the rank that reads it, mapped where it is used. Errors: kResource, kInvalid as
  // SharedMemory (then the group is ended with that reason); comm::PeerLost.
  ShmFabric(comm::Communicator& group, int64_t segment_bytes, const std::string& job,
            const std::string& folder = "/dev/shm", int total_threads = 0);

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(segments_.size()); }
  int64_t segment_bytes() const override { return segment_bytes_; }
  std::byte* Window(int dst, int64_t offset) const override {
    return windows_[static_cast<size_t>(dst)] + offset;
  }
  bool IsReachable(int) const override { return true; }
  void Signal(int dst, const Message& message) override;
  bool Test(int64_t cell, uint32_t tag) override;
  bool Wait(int64_t cell, uint32_t tag, FunctionRef<bool()> keep_waiting) override;

 private:
  int rank_;
  int64_t segment_bytes_;
  WaitLadder ladder_;
  std::vector<SharedMemory> segments_;  // [num_ranks]
  std::vector<std::byte*> windows_;     // [num_ranks]
};

}  // namespace wideload::exchange
