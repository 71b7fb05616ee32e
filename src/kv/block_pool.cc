#include "kv/block_pool.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "base/error.h"

namespace wideload::kv {
namespace {

// The last step of SplitMix64.
uint64_t Mixed(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
  return x ^ (x >> 31);
}

}  // namespace

uint64_t BlockHash(uint64_t before, std::span<const int32_t> tokens) {
  uint64_t hash = before;
  for (const int32_t token : tokens)
    hash = Mixed(hash + 0x9e3779b97f4a7c15U + static_cast<uint32_t>(token));
  return hash;
}

uint64_t SaltHash(std::string_view salt) {
  uint64_t hash = 0;
  for (const char c : salt) hash = Mixed(hash + 1 + static_cast<unsigned char>(c));
  return hash;
}

BlockPool::BlockPool(int64_t num_blocks, int64_t block_tokens)
    : blocks_(num_blocks),
      block_tokens_(static_cast<size_t>(block_tokens)),
      users_(static_cast<size_t>(num_blocks)) {}

int32_t BlockPool::Allocate() {
  if (blocks_.num_free() == 0 && oldest_ >= 0) Forget(oldest_);
  const int32_t number = blocks_.Allocate();
  block(number).num_users = 1;
  return number;
}

// From the end: of two blocks of a sequence that nobody uses, the later one is older, and whoever
// uses a block uses those before it. So the oldest has no children.
void BlockPool::Release(std::span<const int32_t> blocks) {
  for (size_t i = blocks.size(); i-- > 0;) {
    const int32_t number = blocks[i];
    WIDELOAD_CHECK(number >= 0 && number < num_blocks(), "release of block {} of {}", number,
                   num_blocks());
    WIDELOAD_CHECK(block(number).num_users > 0, "block {} is released without a user", number);
    if (--block(number).num_users == 0) ReleaseOne(number);
  }
}

void BlockPool::ReleaseOne(int32_t number) {
  Block& released = block(number);
  if (released.content >= 0) {
    Content& held = content(released.content);
    const bool is_alone = held.first_block == number && released.next_of_content < 0;
    if (is_alone) return AddUnused(released.content);
    int32_t* link = &held.first_block;
    while (*link != number) link = &block(*link).next_of_content;
    *link = released.next_of_content;
    released = {};
  }
  blocks_.Free({&number, 1});
}

BlockPool::Match BlockPool::Find(const Prefix& prefix) const {
  Match match;
  for (ContentId at = FindRoot(prefix.salt); match.num_blocks < prefix.num_blocks();) {
    at = FindContent(at, prefix, match.num_blocks);
    if (at < 0) break;
    ++match.num_blocks;
    if (block(content(at).first_block).num_users == 0) ++match.num_unused;
  }
  return match;
}

ContentId BlockPool::Use(const Prefix& prefix, std::vector<int32_t>& blocks) {
  ContentId at = FindRoot(prefix.salt);
  if (prefix.num_blocks() == 0) return -1;
  for (int64_t i = 0; i < prefix.num_blocks(); ++i) {
    at = FindContent(at, prefix, i);
    WIDELOAD_CHECK(at >= 0, "block {} of a prefix of {} is not there", i, prefix.num_blocks());
    const int32_t number = content(at).first_block;
    if (block(number).num_users++ == 0) RemoveUnused(at);
    blocks.push_back(number);
  }
  return at;
}

ContentId BlockPool::Keep(const Prefix& prefix, ContentId before, int32_t number) {
  WIDELOAD_CHECK(block(number).num_users == 1 && block(number).content < 0,
                 "block {} of {} users is kept", number, block(number).num_users);
  if (before < 0) before = AddRoot(prefix.salt);
  ContentId id = FindContent(before, prefix, prefix.num_blocks() - 1);
  if (id < 0) {
    id = AddContent(before, prefix);
  } else if (block(content(id).first_block).num_users == 0) {
    RemoveUnused(id);
    FreeHolder(content(id));
  }
  block(number).content = id;
  block(number).next_of_content = content(id).first_block;
  content(id).first_block = number;
  return id;
}

void BlockPool::DropUnused() {
  while (oldest_ >= 0) Forget(oldest_);
}

ContentId BlockPool::FindContent(ContentId before, const Prefix& prefix, int64_t index) const {
  if (buckets_.empty()) return -1;
  const uint64_t hash = prefix.hashes[static_cast<size_t>(index)];
  const std::span<const int32_t> tokens = TokensOf(prefix, index);
  ContentId id = buckets_[hash & (buckets_.size() - 1)];
  for (; id >= 0; id = content(id).next_of_hash) {
    const Content& held = content(id);
    if (held.hash == hash && held.before == before && std::ranges::equal(HeldTokens(id), tokens))
      return id;
  }
  return -1;
}

ContentId BlockPool::AddContent(ContentId before, const Prefix& prefix) {
  if (buckets_.empty()) {
    // Small caches take nothing from the heap later.
    constexpr int64_t kMaxReserved = 1 << 16;
    const auto reserved = static_cast<size_t>(std::min(num_blocks(), kMaxReserved));
    contents_.reserve(reserved);
    held_tokens_.reserve(reserved * block_tokens_);
    free_contents_.reserve(reserved);
    buckets_.assign(std::bit_ceil(static_cast<size_t>(num_blocks())), -1);
  }
  if (free_contents_.empty()) {
    free_contents_.push_back(static_cast<ContentId>(contents_.size()));
    contents_.emplace_back();
    held_tokens_.resize(contents_.size() * block_tokens_);
  }
  const ContentId id = free_contents_.back();
  free_contents_.pop_back();
  const uint64_t hash = prefix.hashes.back();
  Content& added = content(id);
  added = {.hash = hash, .before = before, .next_of_hash = bucket(hash)};
  std::ranges::copy(TokensOf(prefix, prefix.num_blocks() - 1), HeldTokens(id).begin());
  bucket(hash) = id;
  if (before >= 0)
    ++content(before).num_children;
  else
    ++NumChildrenOfRoot(before);
  return id;
}

ContentId BlockPool::FindRoot(std::string_view salt) const {
  const auto found = root_of_salt_.find(salt);
  return found == root_of_salt_.end() ? -1 : found->second;
}

ContentId BlockPool::AddRoot(std::string_view salt) {
  if (const ContentId root = FindRoot(salt); root != -1) return root;
  if (free_roots_.empty()) {
    free_roots_.push_back(-2 - static_cast<ContentId>(roots_.size()));
    roots_.emplace_back();
  }
  const ContentId root = free_roots_.back();
  free_roots_.pop_back();
  roots_[static_cast<size_t>(-2 - root)].salt = salt;
  root_of_salt_.emplace(salt, root);
  return root;
}

// Of one that nobody uses.
void BlockPool::Forget(ContentId id) {
  Content& forgotten = content(id);
  WIDELOAD_CHECK(forgotten.num_children == 0, "the oldest unused block has {} after it",
                 forgotten.num_children);
  RemoveUnused(id);
  ContentId* link = &bucket(forgotten.hash);
  while (*link != id) link = &content(*link).next_of_hash;
  *link = forgotten.next_of_hash;
  if (forgotten.before >= 0)
    --content(forgotten.before).num_children;
  else if (--NumChildrenOfRoot(forgotten.before) == 0)
    ForgetRoot(forgotten.before);
  free_contents_.push_back(id);
  FreeHolder(forgotten);
}

void BlockPool::ForgetRoot(ContentId root) {
  root_of_salt_.erase(roots_[static_cast<size_t>(-2 - root)].salt);
  free_roots_.push_back(root);
}

// The one block that holds it, which has no user.
void BlockPool::FreeHolder(Content& held) {
  const int32_t number = std::exchange(held.first_block, -1);
  block(number) = {};
  blocks_.Free({&number, 1});
}

void BlockPool::AddUnused(ContentId id) {
  content(id).older = newest_;
  content(id).newer = -1;
  (newest_ >= 0 ? content(newest_).newer : oldest_) = id;
  newest_ = id;
  ++num_unused_;
}

void BlockPool::RemoveUnused(ContentId id) {
  const Content& removed = content(id);
  (removed.older >= 0 ? content(removed.older).newer : oldest_) = removed.newer;
  (removed.newer >= 0 ? content(removed.newer).older : newest_) = removed.older;
  --num_unused_;
}

}  // namespace wideload::kv
