#include "base/process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/descriptor.h"
#include "base/error.h"

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

// Nothing when this process cannot find out: it has too many open files, or may not look.
std::optional<ProcessState> StateOf(int32_t pid) {
  const Descriptor file(::open(fmt::format("/proc/{}/stat", pid).c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.is_open() && errno != ENOENT && errno != ESRCH) return std::nullopt;
  std::array<char, 2048> text{};
  const ssize_t count = file.is_open() ? ::read(file.get(), text.data(), text.size()) : 0;
  if (count < 0 && errno != ESRCH) return std::nullopt;
  return count > 0 ? ParseStat({text.data(), static_cast<size_t>(count)}) : ProcessState{};
}

bool IsOf(const std::optional<ProcessState>& state, const ProcessStamp& process) {
  return !state || state->start_ticks == process.start_ticks;
}

}  // namespace

ProcessStamp ThisProcess() {
  const auto pid = static_cast<int32_t>(::getpid());
  const std::optional<ProcessState> state = StateOf(pid);
  if (!state) Throw(ErrorKind::kIo, "/proc/{}/stat: cannot be read: {}", pid, std::strerror(errno));
  return {.pid = pid, .start_ticks = state->start_ticks};
}

bool IsAlive(const ProcessStamp& process) {
  const std::optional<ProcessState> now = StateOf(process.pid);
  return !now || (now->state != 'X' && now->state != 'Z' && IsOf(now, process));
}

ProcessWatch::ProcessWatch(const ProcessStamp& process) : process_(process) {
  fd_ = static_cast<int>(::syscall(SYS_pidfd_open, process.pid, 0));
  // The number may have passed to another process before the descriptor was there.
  if (fd_ >= 0 && !IsOf(StateOf(process.pid), process)) {
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
