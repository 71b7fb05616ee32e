// What is left of GPUs in a build without CUDA: a clear refusal.
#include "base/error.h"
#include "device/device.h"

namespace wideload::device {

int NumDevices(std::string& why_none) {
  why_none = "this program was built without CUDA";
  return 0;
}

std::vector<std::unique_ptr<Device>> OpenDevices(std::span<const int>) {
  std::string why_none;
  NumDevices(why_none);
  Throw(ErrorKind::kUnsupported, "{}", why_none);
}

}  // namespace wideload::device
