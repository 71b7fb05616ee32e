// What a rank of a generation server asks a context rank on another host for, as bytes: same
// program on both sides. Pure.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/cache_part.h"

namespace wideload::runtime {

// The answer is what PiecesOf says that the reader takes from each block, class by class, block by
// block.
struct BlockRequest {
  CachePart reader;                          // what it has of its own group's sequences
  int32_t micro_batch = 0;                   // of the context rank's, in whose cache
  std::vector<std::vector<int32_t>> blocks;  // [block classes] of the context rank's cache
};

// What a context rank has.
struct BlockLimits {
  int64_t num_layers = 0;  // of the model
  int32_t num_micro_batches = 1;
  std::vector<int64_t> num_blocks;  // [block classes] of each micro-batch
};

// `bytes` is overwritten.
void WriteBlockRequest(const BlockRequest& request, std::vector<std::byte>& bytes);
// What WriteBlockRequest wrote, for a rank with these. Errors: kCorrupt for another number of
// classes, a micro-batch or block that is not there, more blocks than there are, or a reader that
// can be none.
BlockRequest ReadBlockRequest(std::span<const std::byte> bytes, const BlockLimits& limits);

}  // namespace wideload::runtime
