#include "kv/block_classes.h"

#include <algorithm>

#include "base/error.h"

namespace wideload::kv {

std::vector<int64_t> Windows(std::span<const LayerCacheShape> layers) {
  std::vector<int64_t> windows;
  for (const LayerCacheShape& layer : layers) {
    if (std::find(windows.begin(), windows.end(), layer.window) == windows.end())
      windows.push_back(layer.window);
  }
  return windows;
}

std::vector<BlockClass> BlockClasses(std::span<const int64_t> windows, int64_t num_blocks,
                                     const CacheLimits& limits) {
  std::vector<BlockClass> classes;
  for (const int64_t window : windows) {
    // A sequence holds window - 1 old positions and its new ones: they may begin and end inside
    // blocks.
    const int64_t most = limits.max_batch_size * (BlocksFor(window, limits.num_ranks) + 2) +
                         BlocksFor(limits.max_num_tokens, limits.num_ranks);
    classes.push_back(
        {.window = window, .num_blocks = window == 0 ? num_blocks : std::min(num_blocks, most)});
  }
  return classes;
}

int64_t NumBlocksBehind(int64_t window, int64_t num_computed, int64_t num_ranks) {
  if (window == 0) return 0;
  return std::max<int64_t>(0, num_computed + 1 - window) / TokensPerBlock(num_ranks);
}

int64_t CacheBytes(std::span<const LayerCacheShape> layers, std::span<const BlockClass> classes,
                   DType dtype) {
  int64_t elements = 0;
  for (const LayerCacheShape& layer : layers) {
    const auto found = std::find_if(classes.begin(), classes.end(),
                                    [&](const BlockClass& c) { return c.window == layer.window; });
    WIDELOAD_CHECK(found != classes.end(), "a layer of window {} has no blocks", layer.window);
    elements += layer.ElementsPerToken() * found->num_blocks * kBlockTokens;
  }
  return elements * DTypeBytes(dtype);
}

int64_t BlocksThatFit(std::span<const LayerCacheShape> layers, const CacheLimits& limits,
                      DType dtype, int64_t num_bytes) {
  const std::vector<int64_t> windows = Windows(layers);
  const auto bytes_of = [&](int64_t num_blocks) {
    return CacheBytes(layers, BlockClasses(windows, num_blocks, limits), dtype);
  };
  int64_t fits = 0;
  int64_t too_many = kMaxBlocks + 1;
  while (too_many - fits > 1) {
    const int64_t middle = fits + (too_many - fits) / 2;
    (bytes_of(middle) <= num_bytes ? fits : too_many) = middle;
  }
  return fits;
}

}  // namespace wideload::kv
