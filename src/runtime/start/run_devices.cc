#include "runtime/start/run_devices.h"

#include <algorithm>
#include <charconv>
#include <numeric>
#include <string>

#include "base/error.h"

namespace wideload::runtime {
namespace {

constexpr std::string_view kNumbered = "cuda:";

[[noreturn]] void RefuseDevice(std::string_view text) {
  Throw(ErrorKind::kInvalid,
        "--device is \"{}\"; allowed: cpu, cuda (all GPUs), or cuda:0,1,... with the numbers of "
        "GPUs, each once",
        text);
}

// The numbers that a choice means on this machine. Errors: kUnsupported when there are none, or not
// all of these.
std::vector<int> FindDevices(std::string_view text, const DeviceChoice& choice) {
  std::string why_none;
  const int count = device::NumDevices(why_none);
  if (count == 0)
    Throw(ErrorKind::kUnsupported, "--device is {}: {}; cpu is allowed", text, why_none);
  for (const int index : choice.indices)
    if (index >= count)
      Throw(ErrorKind::kUnsupported, "--device is {}: this machine has {} GPU{}, numbered from 0",
            text, count, count == 1 ? "" : "s");
  if (!choice.indices.empty()) return choice.indices;
  std::vector<int> all(static_cast<size_t>(count));
  std::iota(all.begin(), all.end(), 0);
  return all;
}

}  // namespace

DeviceChoice ParseDevice(std::string_view text) {
  if (text == "cpu") return {};
  DeviceChoice choice{.is_cpu = false};
  if (text == "cuda") return choice;
  if (!text.starts_with(kNumbered)) RefuseDevice(text);
  const char* at = text.data() + kNumbered.size();
  const char* const end = text.data() + text.size();
  while (true) {
    int index = -1;
    const auto [next, error] = std::from_chars(at, end, index);
    const bool is_new = std::ranges::find(choice.indices, index) == choice.indices.end();
    if (error != std::errc() || index < 0 || !is_new) RefuseDevice(text);
    choice.indices.push_back(index);
    if (next == end) return choice;
    if (*next != ',') RefuseDevice(text);
    at = next + 1;
  }
}

void CheckRunDevice(std::string_view text) {
  const DeviceChoice choice = ParseDevice(text);
  if (choice.is_cpu) return;
  FindDevices(text, choice);
}

RunDevices OpenRunDevices(std::string_view text) {
  const DeviceChoice choice = ParseDevice(text);
  if (choice.is_cpu) return {};
  return {.devices = device::OpenDevices(FindDevices(text, choice)),
          .kernels = compute::cuda::MmaKernels()};
}

}  // namespace wideload::runtime
