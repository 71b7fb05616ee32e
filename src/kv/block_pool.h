// The KV blocks of one class on one rank: free, used by sequences, or kept for what they hold. A
// full block whose tokens, and all tokens before them, are those of a new sequence serves it, too:
// several sequences read it and none writes it. Pure and deterministic. Not thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kv/block_allocator.h"
#include "kv/block_classes.h"

namespace wideload::kv {

// Of the tokens of a whole block and, through `before`, of all tokens before them; before the first
// block SaltHash takes its place. Equal hashes are a hint only.
uint64_t BlockHash(uint64_t before, std::span<const int32_t> tokens);
uint64_t SaltHash(std::string_view salt);

// The whole blocks that a sequence begins with, as many as there are hashes.
struct Prefix {
  std::string_view salt;             // sequences of different salts share nothing
  std::span<const int32_t> tokens;   // at least those of a block for each hash
  std::span<const uint64_t> hashes;  // BlockHash of each block

  int64_t num_blocks() const { return static_cast<int64_t>(hashes.size()); }
};

// The tokens of one full block after those of another: a number that lives as long as a block holds
// them.
using ContentId = int32_t;

class BlockPool {
 public:
  // Blocks 0 to num_blocks - 1 of so many tokens, all free.
  explicit BlockPool(int64_t num_blocks, int64_t block_tokens = kBlockTokens);

  int64_t num_blocks() const { return blocks_.num_blocks(); }
  // Blocks that Allocate can give: free ones, and kept ones that nobody uses.
  int64_t num_available() const { return blocks_.num_free() + num_unused_; }
  // A block for one user. Where none is free, the block that was not used for longest loses what it
  // held, the end of a prefix before its beginning. There must be an available one.
  int32_t Allocate();
  // One user less of each: the blocks of one sequence, all that it has, in their order. A block
  // without a user is free, or stays for what it holds if no other block holds the same. A block
  // that has no user: the process ends.
  void Release(std::span<const int32_t> blocks);

  // How many blocks at the beginning of the prefix are there, and how many of those nobody uses, so
  // that a user of them makes fewer available.
  struct Match {
    int64_t num_blocks = 0;
    int64_t num_unused = 0;
  };
  // Tokens are compared, and all before them: the hashes only say where to look.
  Match Find(const Prefix& prefix) const;
  // One more user of the prefix's blocks, all of which Find has found; appends them to `blocks`.
  // Returns what the last one holds, -1 when there is none.
  ContentId Use(const Prefix& prefix, std::vector<int32_t>& blocks);
  // Says that `block`, which has one user, holds the prefix's last block for good; one without
  // users that holds the same is free then. `before` is what Use or Keep returned for the block
  // before, -1 where there is none. Returns what it holds.
  ContentId Keep(const Prefix& prefix, ContentId before, int32_t block);
  // Blocks that nobody uses hold nothing any more.
  void DropUnused();

 private:
  // A node of the tree of what is held. Parents outlive their children.
  struct Content {
    uint64_t hash = 0;
    ContentId before = -1;  // the parent; of a first block -2 - its place in roots_
    int32_t num_children = 0;
    int32_t first_block = -1;  // of those that hold it; one, or all of them have users
    ContentId next_of_hash = -1;
    ContentId older = -1, newer = -1;  // among those that nobody uses
  };
  struct Block {
    int32_t num_users = 0;
    ContentId content = -1;  // -1: none
    int32_t next_of_content = -1;
  };
  // What the first blocks of one salt come after.
  struct Root {
    std::string salt;
    int64_t num_children = 0;  // 0: free
  };

  Content& content(ContentId id) { return contents_[static_cast<size_t>(id)]; }
  const Content& content(ContentId id) const { return contents_[static_cast<size_t>(id)]; }
  std::span<int32_t> HeldTokens(ContentId id) {
    return std::span(held_tokens_).subspan(static_cast<size_t>(id) * block_tokens_, block_tokens_);
  }
  std::span<const int32_t> HeldTokens(ContentId id) const {
    return std::span(held_tokens_).subspan(static_cast<size_t>(id) * block_tokens_, block_tokens_);
  }
  // Of block `index` of the prefix.
  std::span<const int32_t> TokensOf(const Prefix& prefix, int64_t index) const {
    return prefix.tokens.subspan(static_cast<size_t>(index) * block_tokens_, block_tokens_);
  }
  Block& block(int32_t number) { return users_[static_cast<size_t>(number)]; }
  const Block& block(int32_t number) const { return users_[static_cast<size_t>(number)]; }
  ContentId& bucket(uint64_t hash) { return buckets_[hash & (buckets_.size() - 1)]; }
  ContentId FindContent(ContentId before, const Prefix& prefix, int64_t index) const;
  ContentId AddContent(ContentId before, const Prefix& prefix);
  ContentId FindRoot(std::string_view salt) const;
  ContentId AddRoot(std::string_view salt);
  int64_t& NumChildrenOfRoot(ContentId root) {
    return roots_[static_cast<size_t>(-2 - root)].num_children;
  }
  void Forget(ContentId id);
  void ForgetRoot(ContentId root);
  void FreeHolder(Content& held);
  void ReleaseOne(int32_t number);
  void AddUnused(ContentId id);
  void RemoveUnused(ContentId id);

  BlockAllocator blocks_;
  size_t block_tokens_;
  std::vector<Block> users_;  // of each block
  std::vector<Content> contents_;
  std::vector<int32_t> held_tokens_;  // of each content
  std::vector<ContentId> free_contents_;
  std::vector<ContentId> buckets_;  // by hash, a power of two of them; lists by next_of_hash
  std::vector<Root> roots_;
  std::vector<ContentId> free_roots_;
  std::map<std::string, ContentId, std::less<>> root_of_salt_;
  ContentId oldest_ = -1, newest_ = -1;  // of those that nobody uses
  int64_t num_unused_ = 0;
};

}  // namespace wideload::kv
