// What a run of bench_online routed, how well it was balanced, and what other policies would have
// made of the same counts.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "rebalance/replay.h"

namespace wideload::bench {

// Domain after domain, iteration by iteration.
struct Recording {
  int32_t num_ranks = 0;
  size_t num_layers = 0;
  int32_t num_experts = 0;
  std::vector<size_t> domains;  // [iterations]
  std::vector<int32_t> counts;  // [iterations, layers, experts]

  size_t num_iterations() const { return domains.size(); }
  size_t IndexInDomain(size_t iteration) const;
  std::span<const int32_t> Row(size_t iteration, size_t layer) const;
};

// One policy's line of the table.
struct BalanceRow {
  std::string name;
  double whole = 0, settled = 0;  // imbalance by tokens; settled: from a domain's fifth iteration
  int64_t fetched = 0;
  double mean_fetched = 0;   // of a layer for one domain, mean over layers; the domain, not the
                             // first, that fetched most
  int32_t most_fetched = 0;  // by one layer for one domain but the first
};

BalanceRow MakeRow(const std::string& name,
                   const std::vector<rebalance::ReplayedIteration>& iterations,
                   const Recording& recording);
void PrintHeading();
void PrintRow(const BalanceRow& row);

// TensorRT-LLM's placement of each layer by all counts of the first domain.
std::vector<eplb::Placement> OfflinePlan(const Recording& recording, int32_t num_slots);

// Replays every policy and prints its line. Returns that of repair.
BalanceRow Simulate(const Recording& recording, int32_t num_slots,
                    int32_t max_fetched_slots_per_iter);

}  // namespace wideload::bench
