#include "kv/block_allocator.h"

#include <algorithm>
#include <functional>
#include <numeric>

#include "base/error.h"

namespace wideload::kv {

BlockAllocator::BlockAllocator(int64_t num_blocks)
    : num_blocks_(num_blocks),
      free_(static_cast<size_t>(num_blocks)),
      is_free_(static_cast<size_t>(num_blocks), 1) {
  std::iota(free_.begin(), free_.end(), 0);  // ascending order is a min-heap
}

int32_t BlockAllocator::Allocate() {
  WIDELOAD_CHECK(!free_.empty(), "all {} KV blocks are in use", num_blocks_);
  std::pop_heap(free_.begin(), free_.end(), std::greater<>());
  const int32_t block = free_.back();
  free_.pop_back();
  is_free_[static_cast<size_t>(block)] = 0;
  return block;
}

void BlockAllocator::Free(std::span<const int32_t> blocks) {
  for (const int32_t block : blocks) {
    WIDELOAD_CHECK(block >= 0 && block < num_blocks_, "free of block {} of {}", block, num_blocks_);
    WIDELOAD_CHECK(is_free_[static_cast<size_t>(block)] == 0, "block {} is freed twice", block);
    is_free_[static_cast<size_t>(block)] = 1;
    free_.push_back(block);
    std::push_heap(free_.begin(), free_.end(), std::greater<>());
  }
}

}  // namespace wideload::kv
