// A program that runs beside a soak or a benchmark, alone or as the ranks of mpirun: its processes,
// what it prints, its end.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <vector>

namespace wideload {

// build/.../bin/wideload beside this program. Errors: kNotFound.
std::string WideloadProgram();
// "mpirun -n N PROGRAM". Also sets the variables without which Open MPI refuses more ranks than
// cores, refuses root, binds ranks to cores, or spins.
std::vector<std::string> MpirunCommand(int num_ranks, const std::string& program);

class ProgramRun {
 public:
  // Starts it; standard output goes nowhere, standard error to a file of its own.
  explicit ProgramRun(const std::vector<std::string>& command);
  // Kills it if it still runs.
  ~ProgramRun();
  ProgramRun(const ProgramRun&) = delete;
  ProgramRun& operator=(const ProgramRun&) = delete;

  pid_t pid() const { return pid_; }
  // The processes that run `program`: this one, or its children, by OMPI_COMM_WORLD_RANK; -1 for
  // those that are not there (yet).
  std::vector<pid_t> Ranks(const std::string& program, int num_ranks) const;
  // What it has printed to standard error so far.
  std::string Stderr() const;
  bool HasEnded();
  // Waits at most so long. Returns the exit code, 128 + signal when one ended it; nothing when it
  // still runs.
  std::optional<int> WaitFor(std::chrono::milliseconds time);

 private:
  pid_t pid_ = -1;
  std::optional<int> exit_code_;
  std::string stderr_path_;
};

// Proportional set size: the memory of a process, what it shares divided by its users. 0 when it
// cannot be read.
int64_t PssBytes(pid_t pid);
// False for zombies, too.
bool IsRunning(pid_t pid);
// Names in /dev/shm that begin with `prefix`, sorted.
std::vector<std::string> SharedMemoryNames(const std::string& prefix);

}  // namespace wideload
