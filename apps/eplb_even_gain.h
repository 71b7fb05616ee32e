// What the search for an even split would gain over the default policy: said to those who did not
// choose a policy.
#pragma once

#include <cstdint>

#include "eplb/placement/placement.h"
#include "eplb_commands.h"

namespace wideload::apps {

// Plans some layers from the first half of their iterations by both policies, measures on the
// second and logs a line with both figures; without batches, or with fewer than four, a line that
// says what it takes to know.
void TellEvenGain(const RecordedLoads& recorded, const eplb::Sizes& sizes, uint64_t seed);

}  // namespace wideload::apps
