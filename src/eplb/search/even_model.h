// What recorded batches say about later ones, for placements whose split is fixed: mean loads,
// which experts are hot together, and how much each wobbles on its own. Recordings are few, so
// variances and correlations are shrunk towards what chance alone would give. Pure; thread-safe.
#pragma once

#include <cstdint>
#include <vector>

#include "eplb/placement/batch_loads.h"

namespace wideload::eplb {

// Loads in shares of the mean rank's load: all experts of a batch sum up to `total_speed`.
struct EvenModel {
  int32_t num_experts = 0;
  int32_t num_batches = 0;       // 1 when what batches have in common is not told from chance
  std::vector<double> loads;     // [num_batches * num_experts] the batches, shrunk to their mean
  std::vector<double> weights;   // [num_batches] sum up to 1
  std::vector<double> variance;  // [num_experts] of what the batches do not tell, independent
};

// So many batches are told apart at most.
inline constexpr int32_t kMaxModelBatches = 128;

// total_speed: sum over live ranks. Of more than kMaxModelBatches batches all count in the mean,
// the rest is told by so many of them, evenly chosen. Loads that are whole numbers count tokens,
// whose drawing alone gives a variance. Errors: kInvalid when no batch has load.
EvenModel MakeEvenModel(const BatchLoads& recorded, double total_speed);

}  // namespace wideload::eplb
