// Recorded iterations in two halves, one to plan from and one to measure on, and the layers that
// are looked at when looking at all of them takes too long.
#pragma once

#include <cstdint>
#include <vector>

#include "eplb/placement/batch_loads.h"
#include "eplb_commands.h"

namespace wideload::apps {

struct Halves {
  eplb::BatchLoads recorded;
  eplb::BatchLoads measured;
};

enum class Order {
  kInTime,      // the first half of the iterations to plan from, the second to measure on
  kAlternating  // every other one to plan from, so that no drift lies between the two
};

// Of the batches with load. A lone one is measured.
Halves SplitInHalves(const eplb::BatchLoads& batches, Order order);

// Of the layers with load, max_layers in equal steps with the first and the last among them.
std::vector<int32_t> SampledLayers(const RecordedLoads& recorded, int32_t max_layers);

}  // namespace wideload::apps
