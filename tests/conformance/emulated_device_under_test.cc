#include "device/emulated/emulated_device.h"
#include "device_conformance.h"

namespace wideload::device {

std::unique_ptr<Device> DeviceUnderTest(std::string&) {
  return MakeEmulatedDevice(int64_t{1} << 28);
}

}  // namespace wideload::device
