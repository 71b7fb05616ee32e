#include "support/program_run.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "base/error.h"

namespace wideload {
namespace {

namespace fs = std::filesystem;

std::string ReadAll(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

// State and parent of a process: fields 3 and 4 of its stat.
struct ProcessFields {
  char state = 'X';
  pid_t parent = -1;
};

ProcessFields FieldsOf(pid_t pid) {
  const std::string stat = ReadAll(fmt::format("/proc/{}/stat", pid));
  const size_t end = stat.rfind(')');
  ProcessFields fields;
  if (end == std::string::npos) return fields;
  std::istringstream rest(stat.substr(end + 1));
  rest >> fields.state >> fields.parent;
  return fields;
}

int RankOf(pid_t pid) {
  const std::string environment = '\0' + ReadAll(fmt::format("/proc/{}/environ", pid));
  const std::string key = std::string(1, '\0') + "OMPI_COMM_WORLD_RANK=";
  const size_t at = environment.find(key);
  return at == std::string::npos ? -1 : std::atoi(environment.c_str() + at + key.size());
}

}  // namespace

std::string WideloadProgram() {
  const fs::path program = fs::read_symlink("/proc/self/exe").parent_path() / "wideload";
  if (!fs::exists(program))
    Throw(ErrorKind::kNotFound, "{} is not there; build it first", program.string());
  return program.string();
}

std::vector<std::string> MpirunCommand(int num_ranks, const std::string& program) {
  for (const char* name : {"OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM",
                           "OMPI_MCA_rmaps_base_oversubscribe", "OMPI_MCA_mpi_yield_when_idle"})
    ::setenv(name, "1", 1);
  ::setenv("OMPI_MCA_hwloc_base_binding_policy", "none", 1);
  return {"mpirun", "-n", std::to_string(num_ranks), program};
}

ProgramRun::ProgramRun(const std::vector<std::string>& command) {
  std::string path = fs::temp_directory_path() / "wideload-run-XXXXXX";
  const int err = ::mkstemp(path.data());
  if (err < 0) Throw(ErrorKind::kIo, "{}: cannot be made", path);
  stderr_path_ = path;
  std::vector<std::string> arguments = command;
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  pid_ = ::fork();
  if (pid_ == 0) {
    const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    ::dup2(null, STDIN_FILENO);
    ::dup2(null, STDOUT_FILENO);
    ::dup2(err, STDERR_FILENO);
    ::execvp(argv[0], argv.data());
    ::_exit(127);
  }
  ::close(err);
}

ProgramRun::~ProgramRun() {
  if (!HasEnded()) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  fs::remove(stderr_path_);
}

std::vector<pid_t> ProgramRun::Ranks(const std::string& program, int num_ranks) const {
  std::vector<pid_t> ranks(static_cast<size_t>(num_ranks), -1);
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const pid_t pid = std::atoi(entry.path().filename().c_str());
    if (pid <= 0 || (pid != pid_ && FieldsOf(pid).parent != pid_)) continue;
    std::error_code error;
    if (fs::read_symlink(entry.path() / "exe", error) != program) continue;
    const int rank = pid == pid_ ? 0 : RankOf(pid);
    if (rank >= 0 && rank < num_ranks) ranks[static_cast<size_t>(rank)] = pid;
  }
  return ranks;
}

std::string ProgramRun::Stderr() const { return ReadAll(stderr_path_); }

bool ProgramRun::HasEnded() {
  if (exit_code_) return true;
  int status = 0;
  if (::waitpid(pid_, &status, WNOHANG) != pid_) return false;
  exit_code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return true;
}

std::optional<int> ProgramRun::WaitFor(std::chrono::milliseconds time) {
  const auto end = std::chrono::steady_clock::now() + time;
  while (!HasEnded() && std::chrono::steady_clock::now() < end)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  return exit_code_;
}

int64_t PssBytes(pid_t pid) {
  std::ifstream in(fmt::format("/proc/{}/smaps_rollup", pid));
  std::string line;
  while (std::getline(in, line))
    if (line.starts_with("Pss:")) return std::atoll(line.c_str() + 4) * 1024;
  return 0;
}

bool IsRunning(pid_t pid) {
  const char state = FieldsOf(pid).state;
  return state != 'X' && state != 'Z';
}

std::vector<std::string> SharedMemoryNames(const std::string& prefix) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator("/dev/shm"))
    if (entry.path().filename().string().starts_with(prefix))
      names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace wideload
