// Which host a process is on, as far as sharing goes: processes of one host see each other's
// numbers and the same /dev/shm. A value.
#pragma once

#include <array>
#include <functional>
#include <string>

namespace wideload {

// Equal on two processes exactly when they share a kernel, a space of process numbers and /dev/shm,
// and were given the same WIDELOAD_HOST_ID. Plain bytes: ranks send it to each other.
struct HostId {
  std::array<char, 192> text{};
  bool operator==(const HostId&) const = default;
};

// Of this process. The environment variable WIDELOAD_HOST_ID tells processes of one machine apart
// that could share memory, so that they treat each other as other hosts; it never joins what is
// apart. `variable` returns the value of an environment variable or null (std::getenv).
// Errors: kInvalid when the variable is longer than 32 characters.
HostId ThisHost(const std::function<const char*(const char*)>& variable);
HostId ThisHost();

}  // namespace wideload
