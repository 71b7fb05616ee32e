#include "base/process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>

namespace wideload {
namespace {

struct ProcessState {
  char state = 'X';
  uint64_t start_ticks = 0;
};

// The fields after the command's name, which may hold anything, its closing bracket included.
ProcessState ParseStat(std::string_view stat) {
  const size_t name_end = stat.rfind(')');
  if (name_end == std::string_view::npos || name_end + 2 >= stat.size()) return {};
  stat.remove_prefix(name_end + 2);
  ProcessState state{.state = stat[0]};
  constexpr int kFieldsBetween = 19;  // from field 3 (state) to field 22 (starttime)
  for (int i = 0; i < kFieldsBetween; ++i) {
    const size_t space = stat.find(' ');
    if (space == std::string_view::npos) return {};
    stat.remove_prefix(space + 1);
  }
  state.start_ticks = std::strtoull(std::string(stat).c_str(), nullptr, 10);
  return state;
}

ProcessState StateOf(int32_t pid) {
  const int fd = ::open(fmt::format("/proc/{}/stat", pid).c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return {};
  std::array<char, 2048> text{};
  const ssize_t count = ::read(fd, text.data(), text.size());
  ::close(fd);
  return count > 0 ? ParseStat({text.data(), static_cast<size_t>(count)}) : ProcessState{};
}

}  // namespace

ProcessStamp ThisProcess() {
  const auto pid = static_cast<int32_t>(::getpid());
  return {.pid = pid, .start_ticks = StateOf(pid).start_ticks};
}

bool IsAlive(const ProcessStamp& process) {
  const ProcessState now = StateOf(process.pid);
  return now.state != 'X' && now.state != 'Z' && now.start_ticks == process.start_ticks;
}

ProcessWatch::ProcessWatch(const ProcessStamp& process) : process_(process) {
  fd_ = static_cast<int>(::syscall(SYS_pidfd_open, process.pid, 0));
  // The number may have passed to another process before the descriptor was there.
  if (fd_ >= 0 && StateOf(process.pid).start_ticks != process.start_ticks) {
    ::close(fd_);
    fd_ = -1;
  }
}

ProcessWatch::~ProcessWatch() {
  if (fd_ >= 0) ::close(fd_);
}

ProcessWatch::ProcessWatch(ProcessWatch&& other) noexcept
    : process_(other.process_), fd_(std::exchange(other.fd_, -1)) {}

ProcessWatch& ProcessWatch::operator=(ProcessWatch&& other) noexcept {
  process_ = other.process_;
  std::swap(fd_, other.fd_);
  return *this;
}

bool ProcessWatch::HasEnded() const {
  if (fd_ < 0) return !IsAlive(process_);
  pollfd event{.fd = fd_, .events = POLLIN, .revents = 0};
  return ::poll(&event, 1, 0) > 0;
}

}  // namespace wideload
