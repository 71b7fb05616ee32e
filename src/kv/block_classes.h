// How many KV blocks the layers of a model need. Layers that look back equally far share block
// tables: a block number stands for the same positions in all of them. Layers that look back a
// window only give their blocks back behind it. Pure.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "tensor/dtype.h"

namespace wideload::kv {

// Tokens in a block, and the tile in which attention walks the cache from position 0. Part of the
// numerics contract: results depend on it, so it is a constant. 32 positions x 128 elements x 2
// bytes = 8 KiB of keys per head: a tile fits the L1 cache.
inline constexpr int64_t kBlockTokens = 32;

// Block numbers are int32.
inline constexpr int64_t kMaxBlocks = std::numeric_limits<int32_t>::max();

// Ranks that share the context of their sequences have every num_ranks-th block of each: block i
// of a sequence is on rank i mod num_ranks. One number then stands for as many blocks in a row, the
// same place in the cache of each of these ranks. Tokens that such a number stands for:
inline int64_t TokensPerBlock(int64_t num_ranks) { return kBlockTokens * num_ranks; }

// Blocks that hold so many positions of one sequence, on each of the ranks that share its context.
inline int64_t BlocksFor(int64_t num_tokens, int64_t num_ranks = 1) {
  const int64_t unit = TokensPerBlock(num_ranks);
  return (num_tokens + unit - 1) / unit;
}

// What one layer keeps of a position.
struct LayerCacheShape {
  int64_t kv_heads = 0;
  int64_t key_dim = 0;
  int64_t value_dim = 0;  // 0: values are the beginning of their keys (MLA)
  int64_t window = 0;     // positions that one looks at, the last one itself; 0: all before it

  int64_t ElementsPerToken() const { return kv_heads * (key_dim + value_dim); }
  bool operator==(const LayerCacheShape&) const = default;
};

// The layers of one window.
struct BlockClass {
  int64_t window = 0;
  int64_t num_blocks = 0;  // of a rank
};

// The distinct windows of the layers, in order of first appearance: the block classes.
std::vector<int64_t> Windows(std::span<const LayerCacheShape> layers);

// What a rank has under way at most.
struct CacheLimits {
  int64_t max_batch_size = 0;  // sequences
  int64_t max_num_tokens = 0;  // of an iteration
  int64_t num_ranks = 1;       // that share the context of the sequences
};

// `num_blocks` for a class without a window; for others what all sequences can need at once, when
// that is less: their windows and the iteration's tokens.
std::vector<BlockClass> BlockClasses(std::span<const int64_t> windows, int64_t num_blocks,
                                     const CacheLimits& limits);

// Blocks of a sequence at its beginning, on each of the ranks that share its context, that no
// position from `num_computed` on looks at.
int64_t NumBlocksBehind(int64_t window, int64_t num_computed, int64_t num_ranks = 1);

// Memory of all layers' keys and values with these classes' blocks.
int64_t CacheBytes(std::span<const LayerCacheShape> layers, std::span<const BlockClass> classes,
                   DType dtype);

// The largest num_blocks, at most kMaxBlocks, with which BlockClasses take at most num_bytes.
int64_t BlocksThatFit(std::span<const LayerCacheShape> layers, const CacheLimits& limits,
                      DType dtype, int64_t num_bytes);

}  // namespace wideload::kv
