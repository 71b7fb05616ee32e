#include <gtest/gtest.h>

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
                          .num_blocks = 3,
                          .dtype = DType::kF32});
  EXPECT_EQ(cache.shape().BytesPerBlock(), (2 * 14 + 2 * 16 + 24) * kBlockTokens * 4);
  cache.Keys(1).data<float>()[0] = 5;
  EXPECT_EQ(cache.Values(1).data<float>()[0], 0);
  EXPECT_EQ(cache.Keys(0).data<float>()[0], 0);
  EXPECT_EQ(cache.Keys(1).shape(), Shape({3, 2, kBlockTokens, 8}));
  EXPECT_EQ(cache.Values(0).shape(), Shape({3, 2, kBlockTokens, 6}));
  EXPECT_EQ(cache.Keys(2).shape(), Shape({3, 1, kBlockTokens, 24}));
  EXPECT_TRUE(cache.Values(2).empty());
}

}  // namespace
}  // namespace wideload::kv
