// The segments of a group's ranks on this host, as shared memory that each of them maps. Used by
// one thread; the bytes by whoever is given them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/shared_memory.h"
#include "comm/communicator.h"

namespace wideload::exchange {

// Where segments have their names while they are made.
struct ShmPlace {
  std::string job = {};  // no other living job of this host has it
  std::string folder = "/dev/shm";
};

class ShmSegments {
 public:
  // Makes this rank's segment and maps those of the ranks r with is_here[r], which say the same of
  // this one; no segment has a name afterwards. Collective over `group`, also for ranks that are
  // alone; `group` is only used here. Memory: shared, segment_bytes per rank, reserved and touched.
  // Errors: kResource, kInvalid as SharedMemory (then the group is ended with that reason);
  // comm::PeerLost.
  ShmSegments(comm::Communicator& group, const std::vector<bool>& is_here, int64_t segment_bytes,
              const ShmPlace& place);

  int num_ranks() const { return static_cast<int>(windows_.size()); }
  // The segment of `rank`, page-aligned; null when it is not here.
  std::byte* Window(int rank) const { return windows_[static_cast<size_t>(rank)]; }

 private:
  std::vector<SharedMemory> segments_;  // [num_ranks]
  std::vector<std::byte*> windows_;     // [num_ranks]
};

}  // namespace wideload::exchange
