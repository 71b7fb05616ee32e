#include "base/child_process.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>

#include "base/error.h"

namespace wideload {
namespace {

constexpr int kNotStarted = 127;  // as shells say

void CloseAllButStandard() {
  if (::close_range(3, ~0U, 0) == 0) return;
  constexpr int kMost = 65536;  // kernels before 5.9
  for (int fd = 3; fd < kMost; ++fd) ::close(fd);
}

// In the child, where only async-signal-safe functions may be called: other threads of the parent
// may have held any lock.
[[noreturn]] void BecomeProgram(pid_t parent, char* const* argv) {
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (::getppid() != parent) ::_exit(kNotStarted);  // it has ended before that
  for (const int signal : {SIGHUP, SIGINT, SIGQUIT, SIGPIPE, SIGTERM}) ::signal(signal, SIG_DFL);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  const int nothing = ::open("/dev/null", O_RDONLY);
  if (nothing >= 0) ::dup2(nothing, STDIN_FILENO);
  CloseAllButStandard();
  ::execvp(argv[0], argv);
  ::_exit(kNotStarted);
}

}  // namespace

ChildProcess::ChildProcess(const std::vector<std::string>& argv) {
  std::vector<char*> pointers;
  for (const std::string& word : argv) pointers.push_back(const_cast<char*>(word.c_str()));
  pointers.push_back(nullptr);
  const pid_t parent = ::getpid();
  pid_ = ::fork();
  if (pid_ == 0) BecomeProgram(parent, pointers.data());
  if (pid_ < 0) Throw(ErrorKind::kIo, "{} cannot be started: {}", argv[0], std::strerror(errno));
  ::setpgid(pid_, pid_);  // whoever comes first
}

ChildProcess::~ChildProcess() {
  if (Poll()) return;
  Kill();
  int status = 0;
  while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
}

std::optional<int> ChildProcess::Poll() {
  int status = 0;
  if (!status_ && ::waitpid(pid_, &status, WNOHANG) == pid_) status_ = status;
  return status_;
}

void ChildProcess::Signal(int signal) const {
  if (!status_) ::kill(pid_, signal);
}

void ChildProcess::Kill() const {
  if (!status_) ::kill(-pid_, SIGKILL);
}

std::string DescribeEnd(int status) {
  if (WIFEXITED(status)) return fmt::format("exit code {}", WEXITSTATUS(status));
  const int signal = WTERMSIG(status);
  return fmt::format("signal {} ({})", signal, ::strsignal(signal));
}

}  // namespace wideload
