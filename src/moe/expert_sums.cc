#include "moe/expert_sums.h"

#include <array>
#include <cstring>

namespace wideload::moe {
namespace {

constexpr size_t kLanes = 4;  // independent chains: a multiplication takes longer than a load
constexpr uint64_t kOdd = 0x9E3779B97F4A7C15ULL;

// One to one in each argument, so a change of one is never undone by what follows.
uint64_t Mix(uint64_t sum, uint64_t value) {
  sum = (sum ^ value) * kOdd;
  return sum ^ (sum >> 32);
}

}  // namespace

uint64_t SumBytes(std::span<const std::byte> bytes) {
  std::array<uint64_t, kLanes> lanes = {1, 2, 3, 4};
  std::array<uint64_t, kLanes> values{};
  size_t at = 0;
  for (; at + sizeof(values) <= bytes.size(); at += sizeof(values)) {
    std::memcpy(values.data(), bytes.data() + at, sizeof(values));
    for (size_t i = 0; i < kLanes; ++i) lanes[i] = Mix(lanes[i], values[i]);
  }
  values = {};
  if (at < bytes.size()) std::memcpy(values.data(), bytes.data() + at, bytes.size() - at);
  for (size_t i = 0; i < kLanes; ++i) lanes[i] = Mix(lanes[i], values[i]);
  uint64_t sum = bytes.size();
  for (const uint64_t lane : lanes) sum = Mix(sum, lane);
  return sum;
}

ExpertSums SumExperts(const HostExperts& experts, ThreadPool& pool) {
  if (experts.empty()) return {};
  const size_t num_experts = experts[0].size();
  ExpertSums sums(experts.size() * num_experts);
  pool.Run(static_cast<int64_t>(sums.size()), [&](int64_t i, int) {
    const auto at = static_cast<size_t>(i);
    const auto bytes = experts[at / num_experts][at % num_experts].bytes();
    if (!bytes.empty()) sums[at] = SumBytes(bytes);
  });
  return sums;
}

}  // namespace wideload::moe
