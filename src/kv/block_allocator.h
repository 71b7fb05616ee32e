// Hands out the numbers of KV blocks. Pure and deterministic: the lowest free number first. Not
// thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace wideload::kv {

class BlockAllocator {
 public:
  // Blocks 0 to num_blocks - 1, all free.
  explicit BlockAllocator(int64_t num_blocks);

  int64_t num_blocks() const { return num_blocks_; }
  int64_t num_free() const { return static_cast<int64_t>(free_.size()); }
  // There must be a free block.
  int32_t Allocate();
  // Each block must have been allocated and not freed since: else the process ends.
  void Free(std::span<const int32_t> blocks);

 private:
  int64_t num_blocks_;
  std::vector<int32_t> free_;  // a heap with the lowest number on top
  std::vector<char> is_free_;  // of each block
};

}  // namespace wideload::kv
