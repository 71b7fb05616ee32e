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

// What one layer keeps of a position.
struct LayerCacheShape {
  int64_t kv_heads = 0;
  int64_t key_dim = 0;
  int64_t value_dim = 0;  // 0: values are the beginning of their keys (MLA)

  int64_t ElementsPerToken() const { return kv_heads * (key_dim + value_dim); }
  bool operator==(const LayerCacheShape&) const = default;
};

struct CacheShape {
  std::vector<LayerCacheShape> layers;
  int64_t num_blocks = 0;
  DType dtype = DType::kBF16;

  // Of all layers.
  int64_t BytesPerBlock() const;
};

inline int64_t BlocksFor(int64_t num_tokens) {
  return (num_tokens + kBlockTokens - 1) / kBlockTokens;
}

class PagedCache {
 public:
  // Memory: shape.num_blocks * shape.BytesPerBlock(), touched only as blocks are used.
  explicit PagedCache(const CacheShape& shape);

  const CacheShape& shape() const { return shape_; }
  // [num_blocks, kv_heads, kBlockTokens, key_dim] of one layer.
  TensorView Keys(int64_t layer) const;
  // [num_blocks, kv_heads, kBlockTokens, value_dim], or empty where value_dim is 0.
  TensorView Values(int64_t layer) const;

 private:
  struct Layer {
    Buffer keys;
    Buffer values;
  };
  Shape PartShape(int64_t layer, int64_t width) const;

  CacheShape shape_;
  std::vector<Layer> layers_;
};

}  // namespace wideload::kv
