#include "base/mapping_table.h"

#include <signal.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <charconv>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <utility>

#include "base/log.h"
#include "base/temporary.h"

namespace wideload {
namespace {

struct Mapping {
  std::atomic<bool> is_taken{false};
  std::atomic<uintptr_t> begin{0};  // 0: not there; publishes the rest
  uintptr_t end = 0;
  char* path = nullptr;
};
// Shards of a checkpoint are some hundreds.
std::array<Mapping, 4096> g_mappings;

void Say(std::string_view text) {
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
}

// Only what is safe in the handler of a signal.
void OnBusError(int signal, siginfo_t* info, void*) {
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  for (const Mapping& entry : g_mappings) {
    const uintptr_t begin = entry.begin.load();
    if (begin == 0 || address < begin || address >= entry.end) continue;
    std::array<char, 24> digits{};
    const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), address - begin);
    Say(LogPrefix());
    Say("wideload: error: ");
    Say(entry.path);
    Say(": byte ");
    Say({digits.data(), static_cast<size_t>(end.ptr - digits.data())});
    Say(" cannot be read: the file was cut short while it was in use, or its disk fails\n");
    RemoveTemporaries();
    ::_exit(1);
  }
  ::signal(signal, SIG_DFL);  // no file of ours: the read is tried again, and ends the process
}

}  // namespace

int AddMapping(std::span<const std::byte> bytes, const std::string& path) {
  for (size_t i = 0; i < g_mappings.size(); ++i) {
    Mapping& entry = g_mappings[i];
    if (entry.is_taken.load(std::memory_order_relaxed) || entry.is_taken.exchange(true)) continue;
    entry.path = ::strdup(path.c_str());
    if (entry.path == nullptr) {
      entry.is_taken.store(false);
      return -1;
    }
    const auto begin = reinterpret_cast<uintptr_t>(bytes.data());
    entry.end = begin + bytes.size();
    entry.begin.store(begin);
    return static_cast<int>(i);
  }
  return -1;
}

void RemoveMapping(int entry) {
  if (entry < 0) return;
  Mapping& removed = g_mappings[static_cast<size_t>(entry)];
  removed.begin.store(0);
  std::free(std::exchange(removed.path, nullptr));
  removed.is_taken.store(false);
}

void NameUnreadableMappings() {
  LogPrefix();  // makes it: the handler only reads
  struct sigaction action {};
  action.sa_sigaction = OnBusError;
  action.sa_flags = SA_SIGINFO;
  ::sigaction(SIGBUS, &action, nullptr);
}

}  // namespace wideload
