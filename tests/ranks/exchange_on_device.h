// The made-up layer of exchange_load.h with its rows in memory of devices: copies, experts and
// sums are work on streams of the devices of load_kernels.h.
#pragma once

#include <chrono>
#include <optional>

#include "exchange/row_mover.h"
#include "tests/ranks/exchange_load.h"

namespace wideload::exchange {

// How a load runs on devices.
struct DeviceRun {
  int num_devices = 1;  // as far as there are; rank r on device r * num_devices / R
  bool copies_as_the_engine = false;
  // Leaves out what a rank's stream waits for, in one direction; then results are wrong.
  std::optional<Direction> left_out = {};
  // What other ranks announce is seen so much later.
  std::chrono::microseconds delay{0};
};

// All ranks as threads. Whenever the load is skewed, ranks wait for their streams at random times;
// else only after the last layer.
LoadResult RunOnDevices(const Load& load, const DeviceRun& run = {});

}  // namespace wideload::exchange
