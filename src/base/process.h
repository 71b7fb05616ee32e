// Who a process is beyond the reuse of its number, and whether it still lives. Values; the watch is
// used by one thread.
#pragma once

#include <sys/types.h>

#include <compare>
#include <cstdint>

namespace wideload {

// A process of this host: its number, and when it started (clock ticks after boot), so that a later
// process with the same number is not taken for it.
struct ProcessStamp {
  int32_t pid = 0;
  uint64_t start_ticks = 0;
  bool operator==(const ProcessStamp&) const = default;
};

// Errors: kIo when /proc cannot be read.
ProcessStamp ThisProcess();
// False when it is known that there is no such process any more, that its number belongs to another
// one, or that it has ended and waits for its parent; true also where nobody can tell, for want of
// a descriptor or of rights. Source: fields 3 and 22 of /proc/PID/stat.
bool IsAlive(const ProcessStamp& process);

// Tells the end of one process, of any parent, without delay and without reaping it. Move-only.
class ProcessWatch {
 public:
  ProcessWatch() = default;
  // Of a process that has ended: HasEnded() at once.
  explicit ProcessWatch(const ProcessStamp& process);
  ~ProcessWatch();
  ProcessWatch(ProcessWatch&& other) noexcept;
  ProcessWatch& operator=(ProcessWatch&& other) noexcept;

  // One system call; does not wait.
  bool HasEnded() const;
  // Can be read (poll) once the process has ended; -1: there is none, ask HasEnded.
  int descriptor() const { return fd_; }

 private:
  ProcessStamp process_;
  int fd_ = -1;  // pidfd; -1: none to be had (an old kernel), then /proc is asked
};

}  // namespace wideload
