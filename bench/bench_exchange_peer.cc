#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "base/error.h"
#include "bench/bench_exchange.h"

namespace wideload {
namespace {

std::string PeerProgram() {
  const auto program =
      std::filesystem::read_symlink("/proc/self/exe").parent_path() / "mpi_exchange_peer";
  if (!std::filesystem::exists(program))
    Throw(ErrorKind::kNotFound,
          "the comparison needs Open MPI (Debian: openmpi-bin libopenmpi-dev); install it, then "
          "configure and build again: {} was not built",
          program.filename().string());
  return program.string();
}

// More ranks than cores, as root or not: without these Open MPI refuses, binds or spins.
void SetMpiEnvironment() {
  for (const char* name : {"OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM",
                           "OMPI_MCA_rmaps_base_oversubscribe", "OMPI_MCA_mpi_yield_when_idle"})
    ::setenv(name, "1", 1);
  ::setenv("OMPI_MCA_hwloc_base_binding_policy", "none", 1);
}

void WriteAll(int fd, const std::string& text) {
  if (::write(fd, text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    Throw(ErrorKind::kRunFailed, "cannot send a command to an MPI rank: {}", std::strerror(errno));
}

}  // namespace

MpiPeer::MpiPeer(int num_ranks) {
  MakeFifos(num_ranks);
  Start(num_ranks);
  for (int r = 0; r < num_ranks; ++r)  // waits until the rank has opened its end
    fifos_.push_back(::open(fmt::format("{}/{}", folder_, r).c_str(), O_WRONLY | O_CLOEXEC));
  version_ = ReadLine();
}

void MpiPeer::MakeFifos(int num_ranks) {
  std::string name = (std::filesystem::temp_directory_path() / "bench_exchange.XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr)
    Throw(ErrorKind::kIo, "cannot make {}: {}", name, std::strerror(errno));
  folder_ = name;
  for (int r = 0; r < num_ranks; ++r)
    if (::mkfifo(fmt::format("{}/{}", folder_, r).c_str(), 0600) != 0)
      Throw(ErrorKind::kIo, "cannot make a fifo in {}: {}", folder_, std::strerror(errno));
}

void MpiPeer::Start(int num_ranks) {
  const std::string program = PeerProgram();
  const std::string ranks = std::to_string(num_ranks);
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) Throw(ErrorKind::kIo, "pipe: {}", std::strerror(errno));
  SetMpiEnvironment();
  pid_ = ::fork();
  if (pid_ < 0) Throw(ErrorKind::kIo, "fork: {}", std::strerror(errno));
  if (pid_ == 0) {
    ::dup2(ends[1], STDOUT_FILENO);
    ::execlp("mpirun", "mpirun", "-n", ranks.c_str(), program.c_str(), folder_.c_str(),
             static_cast<char*>(nullptr));
    std::_Exit(127);
  }
  ::close(ends[1]);
  output_ = ends[0];
  // A fifo opens only when its reader does: find out first whether there will be one.
  ::usleep(100'000);
  if (::waitpid(pid_, nullptr, WNOHANG) == pid_) {
    pid_ = -1;
    Throw(ErrorKind::kNotFound, "mpirun did not start (Debian: openmpi-bin)");
  }
}

std::string MpiPeer::ReadLine() {
  std::string line;
  for (char c = 0; ::read(output_, &c, 1) == 1;) {
    if (c == '\n') return line;
    line.push_back(c);
  }
  Throw(ErrorKind::kRunFailed, "mpirun ended early");
}

double MpiPeer::Run(const BenchBatch& batch) {
  const std::string command = fmt::format("{} {} {} {}\n", batch.rows_per_peer, batch.iterations,
                                          batch.with_return ? 1 : 0, batch.reads_rows ? 1 : 0);
  for (const int fifo : fifos_) WriteAll(fifo, command);
  return std::strtod(ReadLine().c_str(), nullptr);
}

MpiPeer::~MpiPeer() {
  for (const int fifo : fifos_) ::close(fifo);
  if (pid_ > 0) ::waitpid(pid_, nullptr, 0);
  ::close(output_);
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

}  // namespace wideload
