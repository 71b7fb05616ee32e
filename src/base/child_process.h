// A program that this one starts and looks after: it does not outlive the thread that has started
// it, has nothing of this process's open files, and signals of the terminal do not reach it.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

namespace wideload {

class ChildProcess {
 public:
  // Starts argv[0], looked for in PATH, with the standard output and error of this process and
  // nothing to read, in a process group of its own. SIGTERM reaches it when the calling thread
  // ends. Errors: kIo. A program that cannot be started ends with 127.
  explicit ChildProcess(const std::vector<std::string>& argv);
  // Kills it, and what is left of its group, unless it has ended.
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  // How it has ended, as waitpid says; nothing while it runs.
  std::optional<int> Poll();
  // Sends it a signal, unless it has ended.
  void Signal(int signal) const;
  // SIGKILL to all of its group.
  void Kill() const;

 private:
  pid_t pid_ = -1;
  std::optional<int> status_;
};

// "exit code 4", "signal 9 (Killed)": of a status of ChildProcess::Poll.
std::string DescribeEnd(int status);

}  // namespace wideload
