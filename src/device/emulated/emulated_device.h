// A device that is this processor, for tests of kernels and of what starts them. Strict where a GPU
// is not seen to be: its memory faults when the host touches it, or anybody what lies behind it;
// work is done at the latest possible time, when the host waits for it or frees memory. Threads may
// use it as device.h says; the work is done by the one that waits.
#pragma once

#include <memory>
#include <vector>

#include "device/device.h"

namespace wideload::device {

// A device of compute capability 8.0, of as much memory as `memory_bytes` at most.
std::unique_ptr<Device> MakeEmulatedDevice(int64_t memory_bytes = int64_t{4} << 30);
// Several of them in one machine: kernels of each reach the memory of all, streams wait for events
// of any.
std::vector<std::unique_ptr<Device>> MakeEmulatedDevices(int count,
                                                         int64_t memory_bytes = int64_t{4} << 30);

}  // namespace wideload::device
