// A Fabric for ranks that are threads of one process: the segments are private memory of it.
#pragma once

#include <memory>
#include <vector>

#include "exchange/fabric.h"
#include "tensor/buffer.h"

namespace wideload::exchange {

// Owns the segments of all ranks. Make it before the rank threads, destroy it after them.
class LocalFabrics {
 public:
  // `total_threads` compete for this machine's cores (0: one per rank); it chooses how waits are
  // done. Memory: num_ranks * segment_bytes, zero-filled. Errors: kResource.
  LocalFabrics(int num_ranks, int64_t segment_bytes, int total_threads = 0);
  ~LocalFabrics();

  int size() const { return static_cast<int>(fabrics_.size()); }
  // Valid as long as this object.
  Fabric& rank(int r);

 private:
  class LocalFabric;

  int64_t segment_bytes_;
  WaitLadder ladder_;
  std::vector<Buffer> buffers_;
  std::vector<std::byte*> segments_;  // [num_ranks], 128-byte aligned
  std::vector<std::unique_ptr<LocalFabric>> fabrics_;
};

}  // namespace wideload::exchange
