// The threads of one block of a kernel as fibers of the calling thread.
#pragma once

#include <cstdint>
#include <functional>

#include "device/device.h"
#include "device/kernel.h"

namespace wideload::device::emulated {

// Runs body in each thread of each block of the grid. `seed` chooses the order of blocks and
// threads. Ends the process when threads that have to meet cannot, or write behind the shared
// memory.
void RunGrid(const Grid& grid, uint32_t seed, const std::function<void()>& body);

}  // namespace wideload::device::emulated
