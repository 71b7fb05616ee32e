// The memory of one rank's paged KV cache. Owned by the rank thread; not thread-safe.
#pragma once

#include <cstdint>
#include <vector>

#include "kv/block_classes.h"
#include "tensor/buffer.h"

namespace wideload::kv {

// The layers of a model, and how many blocks there are.
struct CacheShape {
  std::vector<LayerCacheShape> layers;
  std::vector<BlockClass> classes;  // one for each of Windows(layers)
  DType dtype = DType::kBF16;
};

class PagedCache {
 public:
  // Memory: CacheBytes, touched only as blocks are used.
  explicit PagedCache(const CacheShape& shape);

  const CacheShape& shape() const { return shape_; }
  // Whose block tables a layer uses: a position in shape().classes.
  int64_t block_class(int64_t layer) const {
    return layers_[static_cast<size_t>(layer)].block_class;
  }
  // [num_blocks, kv_heads, kBlockTokens, key_dim] of one layer.
  TensorView Keys(int64_t layer) const;
  // [num_blocks, kv_heads, kBlockTokens, value_dim], or empty where value_dim is 0.
  TensorView Values(int64_t layer) const;

 private:
  struct Layer {
    int64_t block_class = 0;
    Buffer keys;
    Buffer values;
  };
  Shape PartShape(int64_t layer, int64_t width) const;

  CacheShape shape_;
  std::vector<Layer> layers_;
};

}  // namespace wideload::kv
