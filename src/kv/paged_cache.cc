#include "kv/paged_cache.h"

namespace wideload::kv {

int64_t CacheShape::BytesPerBlock() const {
  int64_t elements = 0;
  for (const LayerCacheShape& layer : layers) elements += layer.ElementsPerToken();
  return elements * kBlockTokens * DTypeBytes(dtype);
}

PagedCache::PagedCache(const CacheShape& shape) : shape_(shape) {
  for (const LayerCacheShape& layer : shape.layers) {
    const int64_t places = shape.num_blocks * layer.kv_heads * kBlockTokens;
    const int64_t bytes = places * DTypeBytes(shape.dtype);
    layers_.push_back({Buffer(bytes * layer.key_dim), Buffer(bytes * layer.value_dim)});
  }
}

Shape PagedCache::PartShape(int64_t layer, int64_t width) const {
  const int64_t kv_heads = shape_.layers[static_cast<size_t>(layer)].kv_heads;
  return {shape_.num_blocks, kv_heads, kBlockTokens, width};
}

TensorView PagedCache::Keys(int64_t layer) const {
  const auto i = static_cast<size_t>(layer);
  return layers_[i].keys.View(shape_.dtype, PartShape(layer, shape_.layers[i].key_dim));
}

TensorView PagedCache::Values(int64_t layer) const {
  const auto i = static_cast<size_t>(layer);
  const int64_t width = shape_.layers[i].value_dim;
  if (width == 0) return {};
  return layers_[i].values.View(shape_.dtype, PartShape(layer, width));
}

}  // namespace wideload::kv
