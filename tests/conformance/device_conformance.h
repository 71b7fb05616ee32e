// The device that a program of this suite is about.
#pragma once

#include <memory>
#include <string>

#include "device/device.h"

namespace wideload::device {

// A device of its own, or null with the reason why there is none.
std::unique_ptr<Device> DeviceUnderTest(std::string& why_none);

}  // namespace wideload::device
