// The inner loops of the search for an even split: what a change of a few ranks' loads makes of all
// batches at once, for each instruction set the same operations in the same order, so that a plan
// does not depend on the processor. Internal to eplb; pure.
#pragma once

#include <cstdint>

#include "eplb/search/lane_kernels.h"

namespace wideload::eplb {

// Ranks whose loads change, each by up to two experts.
struct EvenChange {
  const float* load[2] = {};    // [num_blocks * kLanes] of the two experts
  const float* factor[2] = {};  // [num_ranks] a rank's load changes by factor x load, of both
  const int32_t* rank = nullptr;
  // [num_ranks] of the rank after the change: see EvenLanes::exponentials
  const float* offset = nullptr;
  int32_t num_ranks = 0;
};

// Loads of ranks in every batch, kLanes batches side by side; lanes without a batch weigh nothing.
struct EvenLanes {
  float* loads = nullptr;          // [num_blocks * num_ranks * kLanes]
  float* exponentials = nullptr;   // the same: exp(sharpness x load + offset of the rank)
  float* sums = nullptr;           // [num_blocks * kLanes] of the exponentials, over ranks
  const float* weights = nullptr;  // [num_blocks * kLanes]
  float sharpness = 1;
  int32_t num_blocks = 0;
  int32_t num_ranks = 0;
};

struct EvenKernels {
  // Sum over batches of weight x log(sum of exponentials after the change / before). Writes the new
  // loads and exponentials of the changed ranks [num_blocks * change.num_ranks * kLanes].
  float (*try_change)(const EvenLanes& lanes, const EvenChange& change, float* loads,
                      float* exponentials);
  // All exponentials from loads and offsets [num_ranks], and their sums. Returns the sum over
  // batches of weight x log(sum).
  float (*exponentiate)(const EvenLanes& lanes, const float* offsets);
  // The sums alone.
  void (*add_up)(const EvenLanes& lanes);
};

// One table per instruction set, by file. Best ones for this processor: BestEvenKernels.
const EvenKernels& BaselineEvenKernels();
// Needs a processor with AVX2.
const EvenKernels& Avx2EvenKernels();
// Needs a processor with AVX-512F.
const EvenKernels& Avx512EvenKernels();
// The widest that this processor has.
const EvenKernels& BestEvenKernels();

}  // namespace wideload::eplb
