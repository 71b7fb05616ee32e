// What a rank of a generation server asks a context rank on another host for, as bytes: same
// program on both sides. Pure.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/spec.h"

namespace wideload::runtime {

// The answer is what PiecesOf says that the reader takes from each block, class by class, block by
// block.
struct BlockRequest {
  model::TensorRank reader;                  // of its own group
  std::vector<std::vector<int32_t>> blocks;  // [block classes] of the context rank's cache
};

// `bytes` is overwritten.
void WriteBlockRequest(const BlockRequest& request, std::vector<std::byte>& bytes);
// What WriteBlockRequest wrote, for a cache with so many blocks of each class. Errors: kCorrupt for
// another number of classes, a block that is not there, more blocks than there are, or a reader
// that can be none.
BlockRequest ReadBlockRequest(std::span<const std::byte> bytes,
                              std::span<const int64_t> num_blocks);

}  // namespace wideload::runtime
