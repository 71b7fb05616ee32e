#include "comm/tree_sum.h"

#include <algorithm>

namespace wideload::comm {
namespace {

// Summed at once, in cache.
constexpr size_t kBlock = 512;

void SumBlock(std::vector<float>& block, size_t num_summands, size_t count) {
  for (size_t distance = 1; distance < num_summands; distance *= 2)
    for (size_t r = 0; r + distance < num_summands; r += 2 * distance) {
      float* left = block.data() + r * kBlock;
      const float* right = left + distance * kBlock;
      for (size_t i = 0; i < count; ++i) left[i] += right[i];
    }
}

}  // namespace

void TreeSum(std::span<const float* const> summands, std::span<float> out,
             std::vector<float>& block) {
  block.resize(std::max(block.size(), summands.size() * kBlock));
  for (size_t begin = 0; begin < out.size(); begin += kBlock) {
    const size_t count = std::min(kBlock, out.size() - begin);
    for (size_t r = 0; r < summands.size(); ++r)
      std::copy_n(summands[r] + begin, count, block.data() + r * kBlock);
    SumBlock(block, summands.size(), count);
    std::copy_n(block.data(), count, out.data() + begin);
  }
}

}  // namespace wideload::comm
