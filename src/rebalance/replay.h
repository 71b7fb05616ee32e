// What an engine with an online balancer would have done on recorded counts: the balancer itself,
// iteration by iteration. The split of a batch depends on its counts alone, and counts do not
// depend on placements, so the engine measures the same, but for chunks: it splits each by itself.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "rebalance/online_balancer.h"

namespace wideload::rebalance {

// How the engine divides an expert's tokens over its slots.
enum class ReplaySplit {
  kOptimal,  // whole tokens
  kEven,     // an expert's slots share alike, in fractions
};

// One iteration, under the placement that was in effect.
struct ReplayedIteration {
  double imbalance = 0;                      // mean over layers with tokens
  int64_t routed_tokens = 0;                 // over all layers
  int32_t fetched_slots = 0;                 // by the change that takes effect with it
  std::vector<int32_t> layer_fetched_slots;  // [layers] of them; empty without a change
};
// A whole replay.
struct Replayed {
  std::vector<ReplayedIteration> iterations;
  BalancerFigures figures;
  std::vector<eplb::Placement> last;  // what the slots hold in the end [layers]

  // Mean imbalance of iterations [begin, end), by routed tokens; 0 without any.
  double MeanImbalance(size_t begin, size_t end) const;
  double MeanImbalance() const { return MeanImbalance(0, iterations.size()); }
};

// counts [iterations * MoE layers * experts], tokens of all ranks. Waits for late plans whatever
// options say, and plans for `split`. Errors: as OnlineBalancer; kInvalid when counts are not whole
// iterations.
Replayed Replay(OnlineOptions options, std::vector<eplb::Placement> start,
                std::span<const int32_t> counts, ReplaySplit split);

}  // namespace wideload::rebalance
