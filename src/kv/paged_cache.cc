#include "kv/paged_cache.h"

namespace wideload::kv {

PagedCache::PagedCache(const CacheShape& shape) : shape_(shape) {
  const int64_t bytes =
      shape.num_layers == 0 ? 0 : shape.num_blocks * shape.BytesPerBlock() / (2 * shape.num_layers);
  for (int64_t i = 0; i < 2 * shape.num_layers; ++i) buffers_.emplace_back(bytes);
}

TensorView PagedCache::View(int64_t index) const {
  return buffers_[static_cast<size_t>(index)].View(
      shape_.dtype, {shape_.num_blocks, shape_.kv_heads, kBlockTokens, shape_.head_dim});
}

}  // namespace wideload::kv
