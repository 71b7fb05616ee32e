#include "eplb/policies/tournament.h"

#include <array>
#include <utility>

namespace wideload::eplb {
namespace {

constexpr int kDigits = 4;  // bytes of the upper half of a key
constexpr size_t kValues = 256;

size_t Digit(uint64_t item, int digit) { return (item >> (32 + 8 * digit)) & 0xff; }

}  // namespace

// The upper half of a load's bits decides nearly always: a counting pass for each of its bytes that
// is not the same everywhere, on items of (upper half, index); then a sort that finds its input
// sorted or almost so.
std::vector<int32_t> SortedByKey(const std::vector<uint64_t>& keys) {
  const size_t size = keys.size();
  std::vector<uint64_t> items(size), scratch(size);
  std::array<std::array<uint32_t, kValues>, kDigits> count{};
  for (size_t i = 0; i < size; ++i) {
    items[i] = (keys[i] & ~uint64_t{0xffffffff}) | i;
    for (int digit = 0; digit < kDigits; ++digit)
      ++count[static_cast<size_t>(digit)][Digit(items[i], digit)];
  }
  for (int digit = 0; digit < kDigits && size > 0; ++digit) {
    std::array<uint32_t, kValues>& begin = count[static_cast<size_t>(digit)];
    if (begin[Digit(items[0], digit)] == size) continue;
    uint32_t sum = 0;
    for (uint32_t& of_value : begin) sum += std::exchange(of_value, sum);
    for (const uint64_t item : items) scratch[begin[Digit(item, digit)]++] = item;
    items.swap(scratch);
  }
  std::vector<int32_t> order(size);
  for (size_t i = 0; i < size; ++i) order[i] = static_cast<int32_t>(items[i] & 0xffffffff);
  const auto by_key = [&keys](int32_t a, int32_t b) {
    return keys[static_cast<size_t>(a)] < keys[static_cast<size_t>(b)];
  };
  if (!std::is_sorted(order.begin(), order.end(), by_key))
    std::stable_sort(order.begin(), order.end(), by_key);
  return order;
}

}  // namespace wideload::eplb
