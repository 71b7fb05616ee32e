// The order in which partial results of attention are added, whoever has computed them: a binary
// tree over the stripes of the cache, whose halves are folded onto each other. Stripes that are a
// multiple of n apart meet before all others, so each of n ranks that have every n-th stripe adds
// its own up to one partial result, and adding these goes on in the same tree. Internal to each
// translation unit of a kernel set.
#pragma once

#include <cstdint>

namespace wideload::compute {
namespace {

// The leaves of the tree from left to right, place i of `count`, a power of two: 0 4 2 6 1 5 3 7.
constexpr int64_t FoldPlace(int64_t i, int64_t count) {
  int64_t place = 0;
  for (; count > 1; count /= 2, i /= 2) place = 2 * place + i % 2;
  return place;
}

// Where leaf i waits, on a stack of those that are not added yet. Afterwards the leaf is added to
// the one below it as long as i is odd, and then i / 2, and so on.
constexpr int64_t FoldLevel(int64_t i) {
  int64_t level = 0;
  for (; i > 0; i /= 2) level += i % 2;
  return level;
}

}  // namespace
}  // namespace wideload::compute
