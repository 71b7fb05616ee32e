// Which experts of a layer are hot and which are cold. Pure; thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "statistics/expert_statistics.h"

namespace wideload::statistics {

// An expert and how busy it is.
struct RankedExpert {
  int32_t expert = 0;
  double load = 0;  // relative to the layer's mean over experts
};

// The ends of a layer's experts, sorted by load.
struct LayerRanking {
  int32_t layer = 0;
  std::vector<RankedExpert> hot;   // busiest first
  std::vector<RankedExpert> cold;  // idlest first
  int32_t never_chosen = 0;        // experts without any load
  double top_share = 0;            // of all tokens, those of the `hot` ones
};

// The `count` busiest and idlest experts of every layer with load, over all iterations; of equal
// ones the lower number first.
std::vector<LayerRanking> RankExperts(const ExpertStatistics& statistics, int32_t count);

}  // namespace wideload::statistics
