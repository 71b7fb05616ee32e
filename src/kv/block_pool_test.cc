#include "kv/block_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <optional>
#include <random>
#include <set>

namespace wideload::kv {
namespace {

// A sequence's whole blocks; block i holds kBlockTokens times texts[i].
class Text {
 public:
  explicit Text(const std::vector<int32_t>& texts, std::string salt = "",
                std::optional<uint64_t> hash = {})
      : salt_(std::move(salt)) {
    uint64_t before = SaltHash(salt_);
    for (const int32_t text : texts) {
      tokens_.insert(tokens_.end(), static_cast<size_t>(kBlockTokens), text);
      before = BlockHash(before, std::span(tokens_).last(static_cast<size_t>(kBlockTokens)));
      hashes_.push_back(hash.value_or(before));
    }
  }
  Prefix First(int64_t num_blocks) const {
    return {.salt = salt_,
            .tokens = tokens_,
            .hashes = std::span(hashes_).first(static_cast<size_t>(num_blocks))};
  }
  Prefix whole() const { return First(static_cast<int64_t>(hashes_.size())); }
  int64_t size() const { return static_cast<int64_t>(hashes_.size()); }

 private:
  std::string salt_;
  std::vector<int32_t> tokens_;
  std::vector<uint64_t> hashes_;
};

// Uses what is there of the text, and computes the rest; returns the sequence's blocks.
std::vector<int32_t> Compute(BlockPool& pool, const Text& text) {
  const int64_t found = pool.Find(text.whole()).num_blocks;
  std::vector<int32_t> blocks;
  ContentId content = pool.Use(text.First(found), blocks);
  for (int64_t i = found; i < text.size(); ++i) {
    blocks.push_back(pool.Allocate());
    content = pool.Keep(text.First(i + 1), content, blocks.back());
  }
  return blocks;
}

TEST(BlockPool, WithoutContentsHandsOutAndTakesBack) {
  BlockPool pool(3);
  const std::vector<int32_t> blocks = {pool.Allocate(), pool.Allocate()};
  EXPECT_EQ(pool.num_available(), 1);
  pool.Release(blocks);
  EXPECT_EQ(pool.num_available(), 3);
  EXPECT_DEATH(pool.Release(blocks), "block 1 is released without a user");
  const int32_t outside[] = {3};
  EXPECT_DEATH(pool.Release(outside), "block 3 of 3");
}

TEST(BlockPool, FindsThePrefixAfterItsSequenceHasEnded) {
  BlockPool pool(8);
  const std::vector<int32_t> first = Compute(pool, Text({1, 2, 3}));
  pool.Release(first);
  EXPECT_EQ(pool.num_available(), 8);
  const BlockPool::Match match = pool.Find(Text({1, 2, 4}).whole());
  EXPECT_EQ(match.num_blocks, 2);
  EXPECT_EQ(match.num_unused, 2);
  const std::vector<int32_t> second = Compute(pool, Text({1, 2, 4}));
  EXPECT_TRUE(std::equal(first.begin(), first.begin() + 2, second.begin()));
  EXPECT_NE(first[2], second[2]);
  EXPECT_EQ(pool.num_available(), 5);
  EXPECT_EQ(pool.Find(Text({2}).whole()).num_blocks, 0) << "the same tokens at another place";
}

TEST(BlockPool, ABlockOfSeveralUsersIsAvailableAfterTheLast) {
  BlockPool pool(2);
  const std::vector<int32_t> first = Compute(pool, Text({1}));
  const std::vector<int32_t> second = Compute(pool, Text({1}));
  EXPECT_EQ(first, second);
  pool.Release(first);
  EXPECT_EQ(pool.num_available(), 1);
  pool.Release(second);
  EXPECT_EQ(pool.num_available(), 2);
  EXPECT_DEATH(pool.Release(second), "without a user");
}

// All blocks have one hash: only their tokens tell them apart.
TEST(BlockPool, EqualHashesAreNotEqualTokens) {
  BlockPool pool(8);
  const std::vector<int32_t> blocks = Compute(pool, Text({1, 2}, "", 7));
  EXPECT_EQ(pool.Find(Text({1, 2}, "", 7).whole()).num_blocks, 2);
  EXPECT_EQ(pool.Find(Text({1, 3}, "", 7).whole()).num_blocks, 1);
  EXPECT_EQ(pool.Find(Text({2, 2}, "", 7).whole()).num_blocks, 0);
  const std::vector<int32_t> other = Compute(pool, Text({2, 1}, "", 7));
  for (const int32_t block : other) EXPECT_EQ(std::ranges::count(blocks, block), 0);
}

TEST(BlockPool, SaltsShareNothing) {
  BlockPool pool(8);
  for (const std::string salt : {"a", "b", ""}) {
    EXPECT_EQ(pool.Find(Text({1}, salt, 7).whole()).num_blocks, 0) << salt;
    pool.Release(Compute(pool, Text({1}, salt, 7)));
    EXPECT_EQ(pool.Find(Text({1}, salt, 7).whole()).num_blocks, 1) << salt;
  }
  pool.DropUnused();
  EXPECT_EQ(pool.Find(Text({1}, "a", 7).whole()).num_blocks, 0);
}

TEST(BlockPool, TheLongestUnusedGoesFirstAndEndsGoBeforeBeginnings) {
  BlockPool pool(4);
  pool.Release(Compute(pool, Text({1, 2})));
  pool.Release(Compute(pool, Text({3, 4})));
  pool.Release(Compute(pool, Text({1})));  // its use makes it younger than 3
  const auto found = [&pool](const Text& text) { return pool.Find(text.whole()).num_blocks; };
  pool.Allocate();
  EXPECT_EQ(found(Text({1, 2})), 1);
  EXPECT_EQ(found(Text({3, 4})), 2);
  pool.Allocate();
  EXPECT_EQ(found(Text({3, 4})), 1);
  pool.Allocate();
  EXPECT_EQ(found(Text({3, 4})), 0);
  EXPECT_EQ(found(Text({1, 2})), 1);
  pool.Allocate();
  EXPECT_DEATH(pool.Allocate(), "in use");
}

TEST(BlockPool, TwoBlocksOfTheSameTokensBecomeOne) {
  BlockPool pool(4);
  const Text text({1});
  std::vector<int32_t> one = {pool.Allocate()}, other = {pool.Allocate()};
  EXPECT_EQ(pool.Keep(text.whole(), -1, one[0]), pool.Keep(text.whole(), -1, other[0]));
  pool.Release(other);
  EXPECT_EQ(pool.num_available(), 3);
  pool.Release(one);
  EXPECT_EQ(pool.num_available(), 4);
  // Computed again by a sequence that did not look: the one that nobody uses gives way.
  std::vector<int32_t> again = {pool.Allocate()};
  EXPECT_NE(again, one);
  pool.Keep(text.whole(), -1, again[0]);
  EXPECT_EQ(pool.num_available(), 3);
  EXPECT_EQ(pool.Find(text.whole()).num_unused, 0);
}

// Sequences of few texts begin, grow and end at random, seed by seed; with one hash for all in
// every second run. Every block found holds what is looked for, no block that is used is handed
// out, and in the end all are available.
TEST(BlockPool, HoldsWhatItSaysThroughRandomUse) {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    std::mt19937_64 random(seed);
    const std::optional<uint64_t> hash = seed % 2 ? std::optional<uint64_t>(3) : std::nullopt;
    BlockPool pool(12);
    std::map<int32_t, std::vector<int32_t>> held;  // what was written into each block
    struct Running {
      std::vector<int32_t> texts, blocks;
      ContentId content = -1;
    };
    std::vector<Running> running;
    for (int step = 0; step < 400; ++step) {
      const uint64_t what = random() % 4;
      if (what == 0 && running.size() < 5) {
        Running& one = running.emplace_back();
        for (uint64_t i = random() % 4; i > 0; --i)
          one.texts.push_back(static_cast<int32_t>(random() % 2));
        const Text text(one.texts, "", hash);
        const int64_t found = random() % 4 == 0 ? 0 : pool.Find(text.whole()).num_blocks;
        one.texts.resize(static_cast<size_t>(found));
        one.content = pool.Use(text.First(found), one.blocks);
        for (size_t i = 0; i < one.blocks.size(); ++i)
          EXPECT_EQ(held[one.blocks[i]],
                    std::vector<int32_t>(one.texts.begin(),
                                         one.texts.begin() + static_cast<std::ptrdiff_t>(i) + 1));
      } else if (what < 3 && !running.empty()) {
        Running& one = running[random() % running.size()];
        if (pool.num_available() == 0) continue;
        one.texts.push_back(static_cast<int32_t>(random() % 2));
        const int32_t block = pool.Allocate();
        for (const Running& other : running) EXPECT_EQ(std::ranges::count(other.blocks, block), 0);
        one.blocks.push_back(block);
        held[block] = one.texts;
        one.content = pool.Keep(Text(one.texts, "", hash).whole(), one.content, block);
      } else if (what == 3 && !running.empty()) {
        const size_t at = random() % running.size();
        pool.Release(running[at].blocks);
        running.erase(running.begin() + static_cast<std::ptrdiff_t>(at));
      }
      std::set<int32_t> used;
      for (const Running& one : running) used.insert(one.blocks.begin(), one.blocks.end());
      EXPECT_EQ(pool.num_available(), 12 - static_cast<int64_t>(used.size()));
    }
    for (const Running& one : running) pool.Release(one.blocks);
    EXPECT_EQ(pool.num_available(), 12);
    pool.DropUnused();
    for (int i = 0; i < 12; ++i) pool.Allocate();
  }
}

}  // namespace
}  // namespace wideload::kv
