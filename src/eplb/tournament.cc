#include "eplb/tournament.h"

#include <array>

namespace wideload::eplb {
namespace {

struct KeyAndIndex {
  uint64_t key;
  int32_t index;
};

// One stable counting pass by the byte at `shift`; returns false when all share it.
bool CountingPass(const std::vector<KeyAndIndex>& from, int shift, std::vector<KeyAndIndex>& to) {
  std::array<uint32_t, 257> begin{};
  for (const KeyAndIndex& item : from) ++begin[((item.key >> shift) & 0xff) + 1];
  if (begin[((from[0].key >> shift) & 0xff) + 1] == from.size()) return false;
  for (size_t i = 1; i < begin.size(); ++i) begin[i] += begin[i - 1];
  for (const KeyAndIndex& item : from) to[begin[(item.key >> shift) & 0xff]++] = item;
  return true;
}

}  // namespace

// The upper half of a load's bits decides nearly always: four counting passes, then a sort that
// finds its input sorted or almost so.
std::vector<int32_t> SortedByKey(const std::vector<uint64_t>& keys) {
  std::vector<KeyAndIndex> items(keys.size());
  for (size_t i = 0; i < keys.size(); ++i) items[i] = {keys[i], static_cast<int32_t>(i)};
  std::vector<KeyAndIndex> scratch(keys.size());
  for (int shift = 32; shift < 64 && !items.empty(); shift += 8)
    if (CountingPass(items, shift, scratch)) items.swap(scratch);
  const auto by_key = [](const KeyAndIndex& a, const KeyAndIndex& b) { return a.key < b.key; };
  if (!std::is_sorted(items.begin(), items.end(), by_key))
    std::stable_sort(items.begin(), items.end(), by_key);
  std::vector<int32_t> order(keys.size());
  for (size_t i = 0; i < items.size(); ++i) order[i] = items[i].index;
  return order;
}

}  // namespace wideload::eplb
