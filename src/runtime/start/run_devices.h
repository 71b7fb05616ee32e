// What --device asks for: the processor, or GPUs. Thread-safe.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "compute/cuda/kernels.h"
#include "device/device.h"

namespace wideload::runtime {

// The value of --device.
struct DeviceChoice {
  bool is_cpu = true;
  std::vector<int> indices = {};  // of GPUs; empty: all of this machine
};

// What the ranks of a process compute on.
struct RunDevices {
  std::vector<std::unique_ptr<device::Device>> devices;  // none: the processor
  const compute::cuda::Kernels* kernels = nullptr;       // of these
};

// "cpu", "cuda", or "cuda:" with the numbers of GPUs, by commas, each once. Errors: kInvalid with
// what is allowed.
DeviceChoice ParseDevice(std::string_view text);

// Refuses, without opening a device, what cannot run; "cpu" always can. Errors: as ParseDevice;
// kUnsupported, in one line, when the program or the machine has no GPU, or not these.
void CheckRunDevice(std::string_view text);

// The GPUs that --device names, in this order; none for "cpu". Errors: as CheckRunDevice's; those
// of device::OpenDevices.
RunDevices OpenRunDevices(std::string_view text);

}  // namespace wideload::runtime
