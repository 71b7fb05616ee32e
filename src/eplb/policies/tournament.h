// A tournament tree: always knows which of n keys is the smallest; changing one key replays one
// path. The inner loop of the greedy policies. Not thread-safe.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>
#include <vector>

namespace wideload::eplb {

// Which of equal keys comes first.
enum class TieWinner { kLowestIndex, kHighestIndex };

// Keys are ordered as unsigned integers; SmallestFirst and LargestFirst turn loads into such keys.
template <TieWinner kTies>
class Tournament {
 public:
  static constexpr uint64_t kLast = std::numeric_limits<uint64_t>::max();

  // A key for each index from 0 on; at least one.
  explicit Tournament(const std::vector<uint64_t>& keys)
      : leaves_(std::bit_ceil(std::max<size_t>(keys.size(), 2))), nodes_(2 * leaves_) {
    for (size_t i = 0; i < leaves_; ++i)
      nodes_[leaves_ + i] = {i < keys.size() ? keys[i] : kLast, static_cast<int64_t>(i)};
    for (size_t i = leaves_ - 1; i >= 1; --i) nodes_[i] = Play(2 * i, nodes_[2 * i]);
  }

  int32_t Winner() const { return static_cast<int32_t>(nodes_[1].index); }
  // The present key of an index.
  uint64_t Key(int32_t index) const { return nodes_[leaves_ + static_cast<size_t>(index)].key; }
  // kLast takes the index out of the game while others are left.
  void Change(int32_t index, uint64_t key) {
    size_t i = leaves_ + static_cast<size_t>(index);
    Node winner{key, index};
    nodes_[i] = winner;
    for (; i > 1; i /= 2) {
      winner = Play(i, winner);
      nodes_[i / 2] = winner;
    }
  }

 private:
  struct Node {
    uint64_t key;
    int64_t index;
  };
  // The winner between node i, held by `own`, and its sibling; without a branch on the keys.
  Node Play(size_t i, Node own) const {
    const Node sibling = nodes_[i ^ 1];
    const bool sibling_wins_ties = ((i & 1) != 0) == (kTies == TieWinner::kLowestIndex);
    const bool sibling_wins =
        (sibling.key < own.key) | ((sibling.key == own.key) & sibling_wins_ties);
    return {sibling_wins ? sibling.key : own.key, sibling_wins ? sibling.index : own.index};
  }

  size_t leaves_;
  std::vector<Node> nodes_;  // node i over nodes 2i and 2i + 1; the leaves from leaves_ on
};

// Keys of a load >= 0 (finite): its bits order as the number does.
inline uint64_t SmallestFirst(double load) { return std::bit_cast<uint64_t>(load + 0.0); }
// The same with the largest load first.
inline uint64_t LargestFirst(double load) { return ~std::bit_cast<uint64_t>(load + 0.0); }

// The indices 0..keys.size()-1 by key ascending, equal keys by index ascending.
std::vector<int32_t> SortedByKey(const std::vector<uint64_t>& keys);

}  // namespace wideload::eplb
