// Runs of N processes under mpirun, each with one rank killed at a random moment, in turns after
// the processes are there and after they compute: the run must end within 5 s of that with a
// failure, name the dead rank once it has begun to compute, and leave no process, no shared memory
// and, after the next run in their folder, no files.
#include <signal.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <regex>
#include <thread>

#include "base/error.h"
#include "support/program_run.h"

namespace wideload {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kTimeToStart{300'000};        // beside other work
constexpr const char* kStarted = "online balancer";  // of the line that every start prints

struct Options {
  int rounds = 20;
  int ranks = 4;
  uint64_t seed = 1;
  int longest_ms = 2500;
  int end_ms = 5000;
  std::string model = WIDELOAD_MODELS_DIR "/wideload-14m";
};

void WriteRows(const fs::path& path, int num_rows, int output_tokens) {
  std::ofstream out(path);
  for (int i = 0; i < num_rows; ++i)
    out << fmt::format("{{\"task_id\": {}, \"input_ids\": [{}], \"output_tokens\": {}}}\n", i,
                       i + 1, output_tokens);
}

class Soak {
 public:
  explicit Soak(const Options& options)
      : options_(options),
        program_(WideloadProgram()),
        folder_(fs::temp_directory_path() / fmt::format("soak-{}", ::getpid())),
        random_(options.seed) {
    fs::create_directory(folder_);
    WriteRows(folder_ / "many.jsonl", 2000, 1000);  // enough for minutes
    WriteRows(folder_ / "few.jsonl", 4, 2);
  }
  ~Soak() { fs::remove_all(folder_); }

  // Returns the number of rounds that failed.
  int Run() {
    const size_t num_before = SharedMemoryNames("").size();
    int num_failed = 0;
    for (int round = 0; round < options_.rounds; ++round) {
      const std::string wrong = Round(round);
      if (wrong.empty()) continue;
      ++num_failed;
      std::printf("round %d FAILED: %s\n", round, wrong.c_str());
    }
    const std::string left = LeftFiles();
    if (!left.empty()) std::printf("FAILED: %s\n", left.c_str());
    num_failed += left.empty() ? 0 : 1;
    std::printf("%d rounds of %d processes, %d failed, %d of them killed while they computed\n",
                options_.rounds, options_.ranks, num_failed, num_computing_);
    std::printf("%d times all ranks had ended and mpirun did not\n", num_stuck_launchers_);
    std::printf("slowest end %.2f s after the kill; names in /dev/shm before and after: %zu, %zu\n",
                slowest_s_, num_before, SharedMemoryNames("").size());
    return num_failed;
  }

 private:
  // "" or what was wrong.
  std::string Round(int round) {
    const auto victim = static_cast<size_t>(random_() % static_cast<uint64_t>(options_.ranks));
    const milliseconds delay(random_() % static_cast<uint64_t>(options_.longest_ms));
    fs::remove_all(folder_ / "statistics");  // of a round in which rank 0 could write them
    ProgramRun run(Command("many.jsonl"));
    const std::vector<pid_t> ranks = AwaitRanks(run);
    if (ranks.empty()) return "the ranks did not start: " + run.Stderr();
    if (round % 2 == 0 && !AwaitStart(run)) return "it did not start: " + run.Stderr();
    run.WaitFor(delay);
    const bool was_computing = run.Stderr().find(kStarted) != std::string::npos;
    num_computing_ += was_computing ? 1 : 0;
    ::kill(ranks[victim], SIGKILL);
    const auto killed = Clock::now();
    const milliseconds limit(options_.end_ms);
    while (std::any_of(ranks.begin(), ranks.end(), IsRunning) && Clock::now() - killed < limit)
      run.WaitFor(milliseconds(5));
    const double seconds = std::chrono::duration<double>(Clock::now() - killed).count();
    const std::optional<int> code = run.WaitFor(2 * limit);
    num_stuck_launchers_ += code ? 0 : 1;
    slowest_s_ = std::max(slowest_s_, seconds);
    std::printf("round %d: rank %zu after %lld ms%s: code %d after %.2f s\n", round, victim,
                static_cast<long long>(delay.count()), was_computing ? ", computing" : "",
                code.value_or(-1), seconds);
    if (seconds * 1000 > options_.end_ms) return "it ended too late";
    return Judge(run, ranks, victim, was_computing, code);
  }

  std::vector<std::string> Command(const std::string& rows) const {
    std::vector<std::string> command = MpirunCommand(options_.ranks, program_);
    for (const std::string& argument :
         {std::string("bench"), std::string("throughput"), std::string("--threads"),
          std::string("1"), std::string("-m"), options_.model, std::string("--dataset"),
          (folder_ / rows).string(), std::string("--output"), (folder_ / "out").string(),
          std::string("--expert-statistic-path"), (folder_ / "statistics").string()})
      command.push_back(argument);
    return command;
  }

  // What the killed runs have left in the folder of their output after one that is not killed; "".
  std::string LeftFiles() {
    fs::remove_all(folder_ / "statistics");
    ProgramRun run(Command("few.jsonl"));
    if (run.WaitFor(kTimeToStart) != 0) return "a run that is not killed failed: " + run.Stderr();
    for (const auto& entry : fs::directory_iterator(folder_)) {
      const std::string name = entry.path().filename().string();
      if (name != "many.jsonl" && name != "few.jsonl" && name != "out" && name != "statistics")
        return "they left " + entry.path().string();
    }
    return "";
  }

  std::vector<pid_t> AwaitRanks(ProgramRun& run) {
    const auto end = Clock::now() + kTimeToStart;
    while (Clock::now() < end && !run.HasEnded()) {
      const std::vector<pid_t> ranks = run.Ranks(program_, options_.ranks);
      if (std::find(ranks.begin(), ranks.end(), -1) == ranks.end()) return ranks;
      std::this_thread::sleep_for(milliseconds(2));
    }
    return {};
  }

  // True once the ranks compute.
  static bool AwaitStart(ProgramRun& run) {
    const auto end = Clock::now() + kTimeToStart;
    while (Clock::now() < end && !run.WaitFor(milliseconds(10)))
      if (run.Stderr().find(kStarted) != std::string::npos) return true;
    return false;
  }

  static std::string Judge(ProgramRun& run, const std::vector<pid_t>& ranks, size_t victim,
                           bool was_computing, std::optional<int> code) {
    // mpirun may be stuck after its ranks have ended: PMIx 4.2 waits for a lock of its own when a
    // rank was killed while it connected.
    if (code == 0) return "it ended as if nothing had happened";
    for (const pid_t pid : ranks)
      if (IsRunning(pid)) return fmt::format("process {} still runs", pid);
    const auto left = SharedMemoryNames(fmt::format("wideload.run-{}-", ranks[0]));
    if (!left.empty()) return "it left " + left.front();
    const std::regex named(fmt::format("rank \\d+.*: waited for .*rank {}(: it)? is dead", victim));
    if (was_computing && !std::regex_search(run.Stderr(), named))
      return "nobody named the rank: " + run.Stderr();
    return "";
  }

  Options options_;
  std::string program_;
  fs::path folder_;
  std::mt19937_64 random_;
  int num_computing_ = 0;
  int num_stuck_launchers_ = 0;
  double slowest_s_ = 0;
};

}  // namespace
}  // namespace wideload

int main(int argc, char** argv) {
  wideload::Options options;
  CLI::App app("Kills a rank of a run of processes at a random moment, again and again.");
  app.add_option("--rounds", options.rounds, "runs")->capture_default_str();
  app.add_option("--ranks", options.ranks, "processes of each")->capture_default_str();
  app.add_option("--seed", options.seed, "of the choice of ranks and moments")
      ->capture_default_str();
  app.add_option("--longest-ms", options.longest_ms, "latest moment after the processes are there")
      ->capture_default_str();
  app.add_option("--end-ms", options.end_ms, "in which a run has to end; more beside other work")
      ->capture_default_str();
  app.add_option("--model", options.model, "folder")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  try {
    return wideload::Soak(options).Run() == 0 ? 0 : 1;
  } catch (const wideload::Error& error) {
    std::fprintf(stderr, "soak_processes: %s\n", error.what());
    return 2;
  }
}
