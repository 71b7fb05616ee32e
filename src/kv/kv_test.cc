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

TEST(PagedCache, SeparatesLayersKeysAndValues) {
  const PagedCache cache(
      {.num_layers = 2, .num_blocks = 3, .kv_heads = 2, .head_dim = 8, .dtype = DType::kF32});
  EXPECT_EQ(cache.shape().BytesPerBlock(), 2 * 2 * 2 * kBlockTokens * 8 * 4);
  cache.Keys(1).data<float>()[0] = 5;
  EXPECT_EQ(cache.Values(1).data<float>()[0], 0);
  EXPECT_EQ(cache.Keys(0).data<float>()[0], 0);
  EXPECT_EQ(cache.Keys(1).shape(), Shape({3, 2, kBlockTokens, 8}));
}

}  // namespace
}  // namespace wideload::kv
