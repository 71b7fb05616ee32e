// Variations of recorded batches: batches are few, and a search that knows only these learns them
// by heart. Pure; thread-safe.
#pragma once

#include <cstdint>

#include "eplb/placement/batch_loads.h"

namespace wideload::eplb {

// `count` scenarios to plan with: recorded ones, evenly chosen when there are more, and between
// them variations of them in turn, scaled to the same total.
BatchLoads VaryBatches(const BatchLoads& recorded, int32_t count, double variation, uint64_t seed);

}  // namespace wideload::eplb
