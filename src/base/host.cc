#include "base/host.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

#include "base/error.h"
#include "base/file.h"

namespace wideload {
namespace {

constexpr size_t kMaxOverride = 32;

std::string SpaceOfProcessNumbers() {
  std::array<char, 64> text{};
  const ssize_t length = ::readlink("/proc/self/ns/pid", text.data(), text.size());
  return length < 0 ? "pid:?" : std::string(text.data(), static_cast<size_t>(length));
}

// Every mount of a tmpfs has a device number of its own.
std::string SharedMemoryFolder() {
  struct stat status {};
  if (::stat("/dev/shm", &status) != 0) return "shm:?";
  return fmt::format("shm:{}", status.st_dev);
}

}  // namespace

HostId ThisHost(const std::function<const char*(const char*)>& variable) {
  const char* const given = variable("WIDELOAD_HOST_ID");
  const std::string name = given == nullptr ? "" : given;
  if (name.size() > kMaxOverride)
    Throw(ErrorKind::kInvalid, "WIDELOAD_HOST_ID is {} characters long; at most {} are allowed",
          name.size(), kMaxOverride);
  // One boot id per start of a machine's kernel.
  const std::string boot = ReadFile("/proc/sys/kernel/random/boot_id", 4096).substr(0, 36);
  const std::string text =
      fmt::format("{} {} {} {}", boot, SpaceOfProcessNumbers(), SharedMemoryFolder(), name);
  HostId host;
  WIDELOAD_CHECK(text.size() < host.text.size(), "the host's name is {} characters", text.size());
  text.copy(host.text.data(), text.size());
  return host;
}

HostId ThisHost() {
  return ThisHost([](const char* name) { return std::getenv(name); });
}

}  // namespace wideload
