#include "model/spec.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace wideload::model {
namespace {

using parallel::Shard;

TEST(HeadsOf, GivesEachRankWholeGroupsOfQueryHeads) {
  const GqaSpec spec{.q_heads = 12, .kv_heads = 3};
  EXPECT_EQ(HeadsOf(spec, {0, 2}).kv, (Shard{0, 2}));
  EXPECT_EQ(HeadsOf(spec, {0, 2}).q, (Shard{0, 8}));
  EXPECT_EQ(HeadsOf(spec, {1, 2}).kv, (Shard{2, 3}));
  EXPECT_EQ(HeadsOf(spec, {1, 2}).q, (Shard{8, 12}));
}

TEST(HeadsOf, HasOneKvHeadOnSeveralRanksWhereThereAreMoreRanks) {
  const GqaSpec spec{.q_heads = 8, .kv_heads = 2};
  // Three ranks for the first KV head, two for the second.
  const Shard q[] = {{0, 2}, {2, 3}, {3, 4}, {4, 6}, {6, 8}};
  for (int32_t r = 0; r < 5; ++r) {
    EXPECT_EQ(HeadsOf(spec, {r, 5}).q, q[r]) << r;
    EXPECT_EQ(HeadsOf(spec, {r, 5}).kv, (r < 3 ? Shard{0, 1} : Shard{1, 2})) << r;
  }
}

TEST(HeadsOf, CoversTheQueryHeadsInOrderOfRanks) {
  for (int64_t kv_heads = 1; kv_heads <= 6; ++kv_heads)
    for (int64_t group = 1; group <= 5; ++group) {
      const GqaSpec spec{.q_heads = kv_heads * group, .kv_heads = kv_heads};
      for (int32_t size = 1; size <= spec.q_heads; ++size) {
        int64_t next = 0;
        for (int32_t r = 0; r < size; ++r) {
          const HeadShard heads = HeadsOf(spec, {r, size});
          ASSERT_EQ(heads.q.begin, next);
          ASSERT_GT(heads.q.size(), 0);
          ASSERT_EQ(heads.q.begin / group, heads.kv.begin);
          ASSERT_EQ((heads.q.end - 1) / group, heads.kv.end - 1);
          ASSERT_EQ(heads.q.size() % heads.kv.size(), 0);
          ASSERT_LE(heads.kv.size(), HeadsOf(spec, {0, size}).kv.size());
          next = heads.q.end;
        }
        ASSERT_EQ(next, spec.q_heads);
      }
    }
}

TEST(CheckTensorParallel, RefusesMoreRanksThanHeads) {
  ModelSpec spec{.vocab_size = 100, .hidden = 64};
  spec.layers.push_back({.attention = GqaSpec{.q_heads = 8, .kv_heads = 2}, .dense_width = 64});
  CheckTensorParallel(spec, 8);
  try {
    CheckTensorParallel(spec, 9);
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(),
                 "tensor_parallel_size is 9; a layer of this model has 8 attention heads, and each "
                 "rank needs one");
  }
}

}  // namespace
}  // namespace wideload::model
