// The blocks of keys and values that a batch looks at, brought together from the ranks that share
// its context. Stateless, so thread-safe.
#pragma once

#include <cstdint>
#include <span>

#include "model/model.h"

namespace wideload::model {

// Blocks of one sequence that its rows look at: [first, end), counted from its beginning.
struct SeenBlocks {
  std::span<const int32_t> blocks;  // compute::KvSequence's
  int64_t first = 0;
  int64_t end = 0;
};

// Of each sequence, one entry for all its parts among `parts`; in the workspace. The same on every
// rank of the group, but for the numbers of blocks.
std::span<const SeenBlocks> FindSeen(const compute::AttentionShape& shape,
                                     std::span<const compute::KvSequence> parts,
                                     int64_t block_tokens, Workspace& workspace);

// A cache with all blocks of some sequences, and the table of each of these.
struct GatheredBlocks {
  compute::PagedKv cache;
  std::span<const std::span<const int32_t>> tables;
};
// Copies of all of `seen` in the workspace. `own`: this rank's cache, with its part. Others may
// read this rank's copies until its next collective of rank.context has returned: they stay as they
// are. Collective over rank.context. Errors: comm::PeerLost.
GatheredBlocks GatherBlocks(const RankContext& rank, const compute::PagedKv& own,
                            std::span<const SeenBlocks> seen);

}  // namespace wideload::model
