// The memory of one rank's paged KV cache. Owned by the rank thread; not thread-safe.
#pragma once

#include <cstdint>
#include <vector>

#include "tensor/buffer.h"

namespace wideload::kv {

// Tokens in a block, and the tile in which attention walks the cache from position 0. Part of the
// numerics contract: results depend on it, so it is a constant. 32 positions x 128 elements x 2
// bytes = 8 KiB of keys per head: a tile fits the L1 cache.
inline constexpr int64_t kBlockTokens = 32;

struct CacheShape {
  int64_t num_layers = 0;
  int64_t num_blocks = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  DType dtype = DType::kBF16;

  int64_t BytesPerBlock() const {
    return 2 * num_layers * kv_heads * kBlockTokens * head_dim * DTypeBytes(dtype);
  }
};

inline int64_t BlocksFor(int64_t num_tokens) {
  return (num_tokens + kBlockTokens - 1) / kBlockTokens;
}

class PagedCache {
 public:
  // Memory: shape.num_blocks * shape.BytesPerBlock(), touched only as blocks are used.
  explicit PagedCache(const CacheShape& shape);

  const CacheShape& shape() const { return shape_; }
  // [num_blocks, kv_heads, kBlockTokens, head_dim] of one layer.
  TensorView Keys(int64_t layer) const { return View(2 * layer); }
  TensorView Values(int64_t layer) const { return View(2 * layer + 1); }

 private:
  TensorView View(int64_t index) const;

  CacheShape shape_;
  std::vector<Buffer> buffers_;  // keys and values of each layer
};

}  // namespace wideload::kv
