#include "kv/paged_cache.h"

#include <algorithm>

#include "base/error.h"

namespace wideload::kv {

PagedCache::PagedCache(const CacheShape& shape) : shape_(shape) {
  const std::vector<int64_t> windows = Windows(shape.layers);
  WIDELOAD_CHECK(windows.size() == shape.classes.size(), "{} block classes for {} windows",
                 shape.classes.size(), windows.size());
  for (const LayerCacheShape& layer : shape.layers) {
    const auto found = std::find(windows.begin(), windows.end(), layer.window);
    const int64_t index = found - windows.begin();
    const BlockClass& blocks = shape.classes[static_cast<size_t>(index)];
    WIDELOAD_CHECK(blocks.window == layer.window, "block class {} is of window {}, not {}", index,
                   blocks.window, layer.window);
    const int64_t places = blocks.num_blocks * layer.kv_heads * kBlockTokens;
    const int64_t bytes = places * DTypeBytes(shape.dtype);
    layers_.push_back({.block_class = index,
                       .keys = Buffer(bytes * layer.key_dim),
                       .values = Buffer(bytes * layer.value_dim)});
  }
}

Shape PagedCache::PartShape(int64_t layer, int64_t width) const {
  const auto i = static_cast<size_t>(layer);
  const BlockClass& blocks = shape_.classes[static_cast<size_t>(layers_[i].block_class)];
  return {blocks.num_blocks, shape_.layers[i].kv_heads, kBlockTokens, width};
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
