#include "device_conformance.h"

namespace wideload::device {

std::unique_ptr<Device> DeviceUnderTest(std::string& why_none) {
  if (NumDevices(why_none) == 0) return nullptr;
  const int first[] = {0};
  return std::move(OpenDevices(first)[0]);
}

}  // namespace wideload::device
