#include "kv/paged_cache.h"

#include <algorithm>

#include "base/error.h"
#include "base/page_policy.h"

namespace wideload::kv {

PagedCache::PagedCache(const CacheShape& shape) : PagedCache(shape, {}) {
  memory_ = Buffer(shape.num_bytes());
  // Attention reads 8 KiB here and there: with small pages it waits for their addresses, too.
  PreferHugePages({memory_.data(), static_cast<size_t>(memory_.num_bytes())});
}

PagedCache::PagedCache(const CacheShape& shape, std::span<std::byte> memory)
    : shape_(shape), blocks_(shape.classes.size()) {
  const std::vector<int64_t> windows = Windows(shape.layers);
  WIDELOAD_CHECK(windows.size() == shape.classes.size(), "{} block classes for {} windows",
                 shape.classes.size(), windows.size());
  for (const LayerCacheShape& layer : shape.layers) {
    const auto found = std::find(windows.begin(), windows.end(), layer.window);
    const int64_t index = found - windows.begin();
    const BlockClass& of_class = shape.classes[static_cast<size_t>(index)];
    WIDELOAD_CHECK(of_class.window == layer.window, "block class {} is of window {}, not {}", index,
                   of_class.window, layer.window);
    // A multiple of 64 bytes: a block has 32 tokens, an element 2 bytes at least.
    const int64_t row_bytes = layer.kv_heads * kBlockTokens * DTypeBytes(shape.dtype);
    int64_t& end = blocks_[static_cast<size_t>(index)].block_bytes;
    const int64_t values_at = end + row_bytes * layer.key_dim;
    layers_.push_back({.block_class = index, .keys_at = end, .values_at = values_at});
    end = values_at + row_bytes * layer.value_dim;
  }
  int64_t begin = 0;
  for (size_t c = 0; c < blocks_.size(); ++c) {
    blocks_[c].begin = begin;
    begin += blocks_[c].block_bytes * shape.classes[c].num_blocks;
  }
  if (memory.empty()) return;
  WIDELOAD_CHECK(static_cast<int64_t>(memory.size()) >= begin, "a cache of {} bytes in {}", begin,
                 memory.size());
  memory_ = Buffer::Over(memory);
}

TensorView PagedCache::Part(int64_t layer, int64_t at, int64_t width) const {
  const LayerCacheShape& of_layer = shape_.layers[static_cast<size_t>(layer)];
  const auto c = static_cast<size_t>(block_class(layer));
  return {shape_.dtype,
          {shape_.classes[c].num_blocks, of_layer.kv_heads, kBlockTokens, width},
          memory_.data() + blocks_[c].begin + at,
          blocks_[c].block_bytes / DTypeBytes(shape_.dtype)};
}

TensorView PagedCache::Keys(int64_t layer) const {
  const auto i = static_cast<size_t>(layer);
  return Part(layer, layers_[i].keys_at, shape_.layers[i].key_dim);
}

TensorView PagedCache::Values(int64_t layer) const {
  const auto i = static_cast<size_t>(layer);
  const int64_t width = shape_.layers[i].value_dim;
  if (width == 0) return {};
  return Part(layer, layers_[i].values_at, width);
}

std::span<std::byte> PagedCache::Block(int64_t block_class, int32_t block) const {
  const auto c = static_cast<size_t>(block_class);
  WIDELOAD_CHECK(block >= 0 && block < shape_.classes[c].num_blocks, "block {} of {}", block,
                 shape_.classes[c].num_blocks);
  const Blocks& blocks = blocks_[c];
  return {memory_.data() + blocks.begin + block * blocks.block_bytes,
          static_cast<size_t>(blocks.block_bytes)};
}

}  // namespace wideload::kv
