// The memory of one rank's paged KV cache: one run of bytes, in which all that a block holds, keys
// and values of every layer of its class, lies together, so that a block travels as one message.
// Owned by the rank thread; not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kv/block_classes.h"
#include "tensor/buffer.h"

namespace wideload::kv {

// The layers of a model, and how many blocks there are.
struct CacheShape {
  std::vector<LayerCacheShape> layers;
  std::vector<BlockClass> classes;  // one for each of Windows(layers)
  DType dtype = DType::kBF16;

  // Of all layers' keys and values.
  int64_t num_bytes() const { return CacheBytes(layers, classes, dtype); }
};

class PagedCache {
 public:
  // Memory: shape.num_bytes(), touched only as blocks are used, in pages of 2 MiB where the system
  // grants them to those who ask.
  explicit PagedCache(const CacheShape& shape);
  // In memory of somebody else's, which may be shared with other processes: shape.num_bytes() of
  // it, zero and 64-byte aligned, that outlive the cache.
  PagedCache(const CacheShape& shape, std::span<std::byte> memory);

  const CacheShape& shape() const { return shape_; }
  // Whose block tables a layer uses: a position in shape().classes.
  int64_t block_class(int64_t layer) const {
    return layers_[static_cast<size_t>(layer)].block_class;
  }
  // [num_blocks, kv_heads, kBlockTokens, key_dim] of one layer; from block to block the bytes of a
  // whole block of its class.
  TensorView Keys(int64_t layer) const;
  // [num_blocks, kv_heads, kBlockTokens, value_dim], likewise, or empty where value_dim is 0.
  TensorView Values(int64_t layer) const;
  // All that a block of a class holds: for each layer of the class, in their order, the keys and
  // then the values. Caches of equal layers and types have the same order.
  std::span<std::byte> Block(int64_t block_class, int32_t block) const;

 private:
  // Where a layer's parts lie in a block.
  struct Layer {
    int64_t block_class = 0;
    int64_t keys_at = 0;
    int64_t values_at = 0;
  };
  // Where the blocks of a class lie.
  struct Blocks {
    int64_t begin = 0;
    int64_t block_bytes = 0;
  };
  TensorView Part(int64_t layer, int64_t at, int64_t width) const;

  CacheShape shape_;
  std::vector<Layer> layers_;
  std::vector<Blocks> blocks_;  // [classes]
  Buffer memory_;
};

}  // namespace wideload::kv
