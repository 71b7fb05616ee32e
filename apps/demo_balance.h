// The demo's arithmetic: from recorded counts to the balance that a placement and a split would
// give. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "statistics/eplb_yaml.h"
#include "statistics/expert_statistics.h"

namespace wideload::apps {

// Rows on each rank, [MoE layers][ranks], of one iteration.
using IterationRows = std::vector<std::vector<double>>;

// Mean over iterations and layers of the imbalance ratio; layers without rows are left out.
double MeanImbalance(const std::vector<IterationRows>& iterations);

// Iterations [begin, end) in which a domain was served.
struct DomainCounts {
  std::string name;
  bool is_training = false;
  int64_t begin = 0;
  int64_t end = 0;
};

struct DomainBalance {
  std::string name;
  bool is_training = false;
  double contiguous = 0;      // one slot per expert
  double greedy_even = 0;     // the plan, tokens shared equally by an expert's slots
  double greedy_optimal = 0;  // the plan, optimal split
  double measured = 0;        // filled by the second run
  double online = 0;          // filled by the third run
};

// TensorRT-LLM's greedy placement of every layer by the training domains' counts.
statistics::EplbConfig PlanFromTraining(const statistics::ExpertStatistics& recorded,
                                        const std::vector<DomainCounts>& domains, int32_t num_ranks,
                                        int32_t num_slots);

// recorded: counts per source rank (not summed).
std::vector<DomainBalance> BalanceOfDomains(const statistics::ExpertStatistics& recorded,
                                            const std::vector<DomainCounts>& domains,
                                            const statistics::EplbConfig& plan);

// Mean over the domains that are not training.
DomainBalance MeanOfServed(const std::vector<DomainBalance>& table);

}  // namespace wideload::apps
