// The program `wideload bench throughput` when it is interrupted, and when one of its rank threads
// stops: what it prints, its exit code, and the statistics it leaves.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <numeric>
#include <sstream>

#include "base/error.h"
#include "statistics/statistics_folder.h"
#include "support/random_model.h"
#include "support/test_data.h"

namespace wideload {
namespace {

// A child process; what it writes to standard error comes through a pipe.
class Program {
 public:
  Program(std::vector<std::string> arguments, const std::vector<std::string>& environment) {
    arguments.insert(arguments.begin(), WIDELOAD_PROGRAM);
    int ends[2];
    EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    pid_ = ::fork();
    if (pid_ == 0) {
      for (const std::string& variable : environment) ::putenv(const_cast<char*>(variable.c_str()));
      ::dup2(::open("/dev/null", O_WRONLY), STDOUT_FILENO);
      ::dup2(ends[1], STDERR_FILENO);
      ::execv(argv[0], argv.data());
      ::_exit(127);
    }
    ::close(ends[1]);
    stderr_ = ends[0];
  }
  ~Program() {
    if (pid_ > 0) ::kill(pid_, SIGKILL);
    if (pid_ > 0) ExitCode();
    ::close(stderr_);
  }

  pid_t pid() const { return pid_; }

  // Reads standard error until `text` has come, or to its end; returns all of it so far.
  const std::string& ReadUntil(const std::string& text) {
    char piece[4096];
    while (text.empty() || output_.find(text) == std::string::npos) {
      const ssize_t count = ::read(stderr_, piece, sizeof(piece));
      if (count <= 0) break;
      output_.append(piece, static_cast<size_t>(count));
    }
    return output_;
  }
  const std::string& ReadToEnd() { return ReadUntil(""); }

  // Waits for the end; 128 + signal when one ended it. Traced threads are let go of on the way.
  int ExitCode() {
    int status = 0;
    while (true) {
      const pid_t ended = ::waitpid(-1, &status, __WALL);
      if (ended < 0) return -1;
      if (ended == pid_ && (WIFEXITED(status) || WIFSIGNALED(status))) break;
    }
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

  // The thread of that name, or -1.
  pid_t FindThread(const std::string& name) const {
    for (const auto& task :
         std::filesystem::directory_iterator(fmt::format("/proc/{}/task", pid_))) {
      std::string found;
      std::getline(std::ifstream(task.path() / "comm") >> std::ws, found);
      if (found == name) return std::stoi(task.path().filename().string());
    }
    return -1;
  }

  // CPU time of a thread in clock ticks.
  int64_t TicksOf(pid_t thread) const {
    std::string line;
    std::getline(std::ifstream(fmt::format("/proc/{}/task/{}/stat", pid_, thread)), line);
    std::istringstream fields(line.substr(line.rfind(')') + 2));
    std::string skipped;
    for (int i = 0; i < 11; ++i) fields >> skipped;
    int64_t user = 0, system = 0;
    fields >> user >> system;
    return user + system;
  }

 private:
  pid_t pid_ = -1;
  int stderr_ = -1;
  std::string output_;
};

class BenchProgram : public testing::Test {
 protected:
  BenchProgram()
      : folder_(testing_support::TemporaryFolder("program_faults")),
        statistics_(folder_ + "/statistics") {
    std::filesystem::remove_all(statistics_);
    std::filesystem::create_directories(folder_);
    std::ofstream rows(folder_ + "/rows.jsonl");  // far more than a test waits for
    for (int i = 0; i < 4000; ++i)
      rows << "{\"task_id\": " << i << ", \"input_ids\": [1, 2, 3], \"output_tokens\": 400}\n";
  }

  std::vector<std::string> Arguments(const std::vector<std::string>& more = {}) const {
    std::vector<std::string> arguments = {
        "bench",     "throughput",
        "--model",   testing_support::SourcePath("testdata/models/tiny-qwen3-moe"),
        "--dataset", folder_ + "/rows.jsonl",
        "--ep",      "4",
        "--threads", "1"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }

  static constexpr char kStarted[] = "online balancer";  // ends the line that says what is active
  std::string folder_;
  std::string statistics_;
};

class InterruptedBench : public BenchProgram, public testing::WithParamInterface<int> {};
INSTANTIATE_TEST_SUITE_P(Signals, InterruptedBench, testing::Values(SIGINT, SIGTERM),
                         [](const auto& test) {
                           return std::string(test.param == SIGINT ? "Sigint" : "Sigterm");
                         });

TEST_P(InterruptedBench, WritesItsStatisticsAndExitsWithTheSignal) {
  Program program(Arguments({"--expert-statistic-path", statistics_}), {});
  ASSERT_NE(program.ReadUntil(kStarted).find(kStarted), std::string::npos) << program.ReadToEnd();
  ::kill(program.pid(), GetParam());
  program.ReadToEnd();
  EXPECT_EQ(program.ExitCode(), 128 + GetParam());
  const auto written = statistics::ReadStatistics(statistics_, {});
  EXPECT_EQ(written.ep_size, 4);
  EXPECT_GE(written.num_iterations, 1);
}

TEST_F(BenchProgram, RecordsWhatTheEnvironmentAsksFor) {
  Program program(Arguments({"--num-requests", "8", "--max-tokens", "12"}),
                  {"EXPERT_STATISTIC_PATH=" + statistics_, "EXPERT_STATISTIC_ITER_RANGE=3-7"});
  const std::string output = program.ReadToEnd();
  ASSERT_EQ(program.ExitCode(), 0) << output;
  const auto written = statistics::ReadStatistics(statistics_, {});
  EXPECT_EQ(written.iter_start, 3);
  EXPECT_EQ(written.num_iterations, 4);
  // 8 requests decode in these iterations; top-4.
  for (const std::vector<int64_t>& loads :
       {statistics::LayerLoads(written, 0), statistics::LayerLoads(written, 3)})
    EXPECT_EQ(std::accumulate(loads.begin(), loads.end(), int64_t{0}), 4 * 8 * 4);
}

TEST_F(BenchProgram, EndsWhenARankThreadStops) {
  Program program(Arguments({"--deadline", "1", "--expert-statistic-path", statistics_}), {});
  ASSERT_NE(program.ReadUntil(kStarted).find(kStarted), std::string::npos) << program.ReadToEnd();
  const pid_t thread = program.FindThread("rank 2");
  ASSERT_GT(thread, 0);
  // By then it has computed many iterations of this model.
  constexpr int64_t kTicks = 8;
  while (program.TicksOf(thread) < kTicks) ::sched_yield();
  if (::ptrace(PTRACE_SEIZE, thread, nullptr, nullptr) != 0)
    GTEST_SKIP() << "this system does not let a process trace its child";
  ASSERT_EQ(::ptrace(PTRACE_INTERRUPT, thread, nullptr, nullptr), 0);
  const std::string output = program.ReadToEnd();
  EXPECT_EQ(program.ExitCode(), 1);
  EXPECT_NE(output.find("wideload: error: "), std::string::npos) << output;
  EXPECT_NE(output.find("of rank 2: no answer for "), std::string::npos) << output;
  EXPECT_NE(output.find("requests had not ended; what they had generated is lost"),
            std::string::npos)
      << output;
  EXPECT_GE(statistics::ReadStatistics(statistics_, {}).num_iterations, 1);
}

}  // namespace
}  // namespace wideload
