// A Fabric between hosts: ranks of this host share memory, to the others every announcement goes as
// one message of MPI with the payload alone, received in place. Needs ranks of MpiSession. Used as
// Fabric says.
#pragma once

#include <vector>

#include "comm/hosts.h"
#include "comm/mpi/peer_messages.h"
#include "exchange/fabric.h"
#include "exchange/shm_segments.h"
#include "tensor/buffer.h"

namespace wideload::exchange {

// MPI sends what is left of a large message only while the sender is in Test or Wait of this or
// another fabric, or in a wait of a communicator: a rank that computes lets its messages rest.
class MpiFabric final : public Fabric {
 public:
  // Collective over `group`, which outlives this object. `hosts` is that of the group; `place` as
  // ShmSegments. Memory: segment_bytes, shared where this host has more ranks; per rank of another
  // host up to segment_bytes more, of which only the pages count that payloads for it were written
  // to. Errors: as ShmSegments; kUnsupported as PeerMessages, or when segments are too large for
  // the tags of MPI; comm::PeerLost.
  MpiFabric(comm::Communicator& group, const comm::Hosts& hosts, int64_t segment_bytes,
            const ShmPlace& place);
  // Memory that MPI may still write to, after the loss of a peer, stays for good.
  ~MpiFabric() override;

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(windows_.size()); }
  int64_t segment_bytes() const override { return segment_bytes_; }
  std::byte* Window(int dst, int64_t offset) const override {
    return windows_[static_cast<size_t>(dst)] + offset;
  }
  bool IsReachable(int dst) const override { return is_here_[static_cast<size_t>(dst)]; }
  void Signal(int dst, const Message& message) override;
  void Expect(int source, const Message& message) override;
  bool Test(int64_t cell, uint32_t tag) override;
  bool Wait(int64_t cell, uint32_t tag, FunctionRef<bool()> keep_waiting) override;

 private:
  // What was expected and is not here yet.
  struct Awaited {
    int source = 0;  // -1: free
    int64_t cell = 0;
    uint32_t tag = 0;
  };

  void MakeWindows();
  void CheckTags() const;
  int TagOf(const Message& message) const;
  EventWord& CellAt(int rank, int64_t cell) const;
  void Progress();

  int rank_;
  int64_t segment_bytes_;
  std::vector<bool> is_here_;  // [num_ranks]
  ShmSegments shared_;
  std::vector<Buffer> own_memory_;     // of windows that are not shared
  std::vector<std::byte*> windows_;    // [num_ranks], 128-byte aligned
  std::vector<Awaited> awaited_;       // by id
  std::vector<int64_t> free_awaited_;  // ids
  comm::PeerMessages messages_;
};

}  // namespace wideload::exchange
