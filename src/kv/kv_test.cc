#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "kv/block_allocator.h"
#include "kv/paged_cache.h"

namespace wideload::kv {
namespace {

TEST(BlockAllocator, GivesTheLowestFreeBlock) {
  BlockAllocator allocator(4);
  for (int32_t i = 0; i < 4; ++i) EXPECT_EQ(allocator.Allocate(), i);
  EXPECT_EQ(allocator.num_free(), 0);
  EXPECT_DEATH(allocator.Allocate(), "in use");
  const int32_t blocks[] = {3, 1};
  allocator.Free(blocks);
  EXPECT_EQ(allocator.Allocate(), 1);
  EXPECT_EQ(allocator.Allocate(), 3);
}

TEST(BlockAllocator, AFreeThatWasNotAllocatedEndsTheProcess) {
  BlockAllocator allocator(4);
  const int32_t block[] = {allocator.Allocate()};
  allocator.Allocate();
  allocator.Free(block);
  EXPECT_DEATH(allocator.Free(block), "block 0 is freed twice");
  const int32_t never[] = {3};
  EXPECT_DEATH(allocator.Free(never), "block 3 is freed twice");
  const int32_t outside[] = {4};
  EXPECT_DEATH(allocator.Free(outside), "block 4 of 4");
}

TEST(PagedCache, SeparatesLayersKeysAndValues) {
  const PagedCache cache({.layers = {{.kv_heads = 2, .key_dim = 8, .value_dim = 6},
                                     {.kv_heads = 2, .key_dim = 8, .value_dim = 8},
                                     {.kv_heads = 1, .key_dim = 24, .value_dim = 0}},
                          .classes = {{.num_blocks = 3}},
                          .dtype = DType::kF32});
  cache.Keys(1).data<float>()[0] = 5;
  EXPECT_EQ(cache.Values(1).data<float>()[0], 0);
  EXPECT_EQ(cache.Keys(0).data<float>()[0], 0);
  EXPECT_EQ(cache.Keys(1).shape(), Shape({3, 2, kBlockTokens, 8}));
  EXPECT_EQ(cache.Values(0).shape(), Shape({3, 2, kBlockTokens, 6}));
  EXPECT_EQ(cache.Keys(2).shape(), Shape({3, 1, kBlockTokens, 24}));
  EXPECT_TRUE(cache.Values(2).empty());
}

// Each layer's part of a block, and nothing else, lies in that block's run of bytes.
TEST(PagedCache, HoldsABlockOfAllLayersOfAClassTogether) {
  const LayerCacheShape all = {.kv_heads = 2, .key_dim = 8, .value_dim = 6};
  const LayerCacheShape near = {.kv_heads = 1, .key_dim = 4, .value_dim = 4, .window = 40};
  const CacheShape shape = {.layers = {all, near, all},
                            .classes = {{.num_blocks = 5}, {.window = 40, .num_blocks = 3}},
                            .dtype = DType::kF32};
  std::vector<float> memory(static_cast<size_t>(shape.num_bytes()) / 4 + 16);
  const size_t to_line = (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) / 4 % 16;
  const PagedCache cache(shape, std::as_writable_bytes(std::span(memory).subspan(to_line)));
  EXPECT_EQ(cache.Block(0, 0).size(), 2 * 2 * kBlockTokens * 14 * 4);
  EXPECT_EQ(cache.Block(1, 0).size(), kBlockTokens * 8 * 4);
  float next = 1;
  for (const auto& [block_class, block] : {std::pair(0, 4), std::pair(1, 1)}) {
    std::vector<float> expected;
    for (int64_t layer = 0; layer < 3; ++layer) {
      if (cache.block_class(layer) != block_class) continue;
      for (const TensorView& part : {cache.Keys(layer), cache.Values(layer)}) {
        const auto size = static_cast<size_t>(part.num_bytes() / part.dim(0)) / 4;
        for (size_t i = 0; i < size; ++i) expected.push_back(part.row<float>(block)[i] = next++);
      }
    }
    const auto bytes = cache.Block(block_class, block);
    ASSERT_EQ(bytes.size(), expected.size() * 4);
    EXPECT_EQ(std::memcmp(bytes.data(), expected.data(), bytes.size()), 0);
  }
  EXPECT_EQ(std::ranges::count(memory, 0.0F), std::ssize(memory) - static_cast<int64_t>(next) + 1);
  EXPECT_DEATH((void)cache.Block(1, 3), "block 3 of 3");
}

TEST(BlockClasses, LayersOfOneWindowShareBlocksAndNeedNoMoreThanTheirWindows) {
  const LayerCacheShape all = {.kv_heads = 2, .key_dim = 8, .value_dim = 8};
  LayerCacheShape near = all;
  near.window = 128;
  const std::vector<LayerCacheShape> layers = {near, all, near, all};
  const std::vector<int64_t> windows = Windows(layers);
  EXPECT_EQ(windows, (std::vector<int64_t>{128, 0}));
  const CacheLimits limits = {.max_batch_size = 4, .max_num_tokens = 64};
  const std::vector<BlockClass> classes = BlockClasses(windows, 1000, limits);
  EXPECT_EQ(classes[0].num_blocks, 4 * (4 + 2) + 2);
  EXPECT_EQ(classes[1].num_blocks, 1000);
  EXPECT_EQ(BlockClasses(windows, 5, limits)[0].num_blocks, 5);

  const int64_t bytes = 2 * 32 * kBlockTokens * 2 * (26 + 1000);
  EXPECT_EQ(CacheBytes(layers, classes, DType::kBF16), bytes);
  EXPECT_EQ(BlocksThatFit(layers, limits, DType::kBF16, bytes), 1000);
  EXPECT_EQ(BlocksThatFit(layers, limits, DType::kBF16, bytes - 1), 999);
  EXPECT_EQ(BlocksThatFit(layers, limits, DType::kBF16, 10), 0);

  const PagedCache cache({.layers = layers, .classes = classes, .dtype = DType::kBF16});
  EXPECT_EQ(cache.block_class(2), 0);
  EXPECT_EQ(cache.block_class(3), 1);
  EXPECT_EQ(cache.Keys(2).shape(), Shape({26, 2, kBlockTokens, 8}));
  EXPECT_EQ(cache.Values(1).shape(), Shape({1000, 2, kBlockTokens, 8}));
}

// Position n looks at n + 1 - window .. n.
TEST(BlockClasses, ABlockIsBehindWhenItsLastPositionIs) {
  EXPECT_EQ(NumBlocksBehind(0, 5000), 0);
  EXPECT_EQ(NumBlocksBehind(40, 0), 0);
  EXPECT_EQ(NumBlocksBehind(40, 32 + 39 - 1), 0);
  EXPECT_EQ(NumBlocksBehind(40, 32 + 39), 1);
  EXPECT_EQ(NumBlocksBehind(1, 31), 0);
  EXPECT_EQ(NumBlocksBehind(1, 32), 1);
}

}  // namespace
}  // namespace wideload::kv
