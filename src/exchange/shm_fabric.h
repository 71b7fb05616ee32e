// A Fabric for ranks that are processes of one host: each rank's segment is shared memory that all
// of them map. Used as Fabric says.
#pragma once

#include <string>

#include "comm/communicator.h"
#include "exchange/fabric.h"
#include "exchange/shm_segments.h"

namespace wideload::exchange {

class ShmFabric final : public Fabric {
 public:
  // Makes this rank's segment and maps those of the others, as ShmSegments; all ranks of `group`
  // must be on this host. `total_threads` as in LocalFabrics.
  ShmFabric(comm::Communicator& group, int64_t segment_bytes, const std::string& job,
            const std::string& folder = "/dev/shm", int total_threads = 0);

  int rank() const override { return rank_; }
  int size() const override { return segments_.num_ranks(); }
  int64_t segment_bytes() const override { return segment_bytes_; }
  std::byte* Window(int dst, int64_t offset) const override {
    return segments_.Window(dst) + offset;
  }
  bool IsReachable(int) const override { return true; }
  void Signal(int dst, const Message& message) override;
  void Expect(int, const Message&) override {}
  bool Test(int64_t cell, uint32_t tag) override;
  bool Wait(int64_t cell, uint32_t tag, FunctionRef<bool()> keep_waiting) override;

 private:
  int rank_;
  int64_t segment_bytes_;
  WaitLadder ladder_;
  ShmSegments segments_;
};

}  // namespace wideload::exchange
