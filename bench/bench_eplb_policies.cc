// Time of the parity policies on one core: the CPU time of this thread, median and best of many.
// Usage: bench_eplb_policies
#include <time.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <span>
#include <vector>

#include "eplb/policy.h"

namespace wideload::bench {
namespace {

constexpr int kRepetitions = 41;
constexpr uint64_t kSeed = 1;

struct Case {
  const char* policy;
  int layers, experts, slots, ranks, nodes, groups;
};
constexpr Case kCases[] = {
    {"tensorrt_llm", 58, 256, 288, 36, 1, 1}, {"deepseek", 58, 256, 288, 36, 1, 1},
    {"deepseek", 58, 256, 288, 32, 4, 8},     {"tensorrt_llm", 1, 1024, 2048, 1024, 1, 1},
    {"deepseek", 1, 1024, 2048, 1024, 1, 1},
};

double CpuMilliseconds() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) * 1e-6;
}

void Measure(const Case& c) {
  std::mt19937_64 random(kSeed);
  std::vector<std::vector<double>> loads(static_cast<size_t>(c.layers));
  for (auto& layer : loads)
    for (int e = 0; e < c.experts; ++e)
      layer.push_back(std::floor(1000 * std::pow(1 + static_cast<double>(random() % 1000), -0.8) *
                                 static_cast<double>(1 + random() % 1000)));
  const eplb::Policy& policy = eplb::FindPolicy(c.policy);
  std::vector<double> times;
  for (int i = 0; i < kRepetitions; ++i) {
    const double start = CpuMilliseconds();
    for (const auto& layer : loads)
      policy.plan({.loads = layer,
                   .num_slots = c.slots,
                   .num_ranks = c.ranks,
                   .num_nodes = c.nodes,
                   .num_groups = c.groups});
    times.push_back(CpuMilliseconds() - start);
  }
  std::sort(times.begin(), times.end());
  std::printf("%-13s %2d x %4d -> %4d slots on %4d ranks, %d nodes: %7.3f ms (best %.3f)\n",
              c.policy, c.layers, c.experts, c.slots, c.ranks, c.nodes, times[kRepetitions / 2],
              times[0]);
}

}  // namespace
}  // namespace wideload::bench

int main() {
  std::printf(
      "CPU time of one thread, median of %d. Published Python function: 941 ms for 58 x 256 "
      "-> 288 on 36 ranks (cited, not measured here)\n",
      wideload::bench::kRepetitions);
  for (const auto& c : wideload::bench::kCases) wideload::bench::Measure(c);
}
