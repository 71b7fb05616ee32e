// The cost of processes: the same requests on N ranks that are processes under mpirun and on N
// ranks that are threads of one process, in turns on the same machine; tokens per second and
// memory.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "base/cpu_info.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "support/program_run.h"

namespace wideload {
namespace {

using std::chrono::milliseconds;

struct Options {
  int ranks = 8;
  int pairs = 9;
  int requests = 128;
  int prompt_tokens = 64;
  int output_tokens = 96;
  int concurrency = 64;
  std::string model = WIDELOAD_MODELS_DIR "/wideload-14m";
  std::vector<std::string> more;
};

struct Figures {
  double tokens_per_s = 0;
  int64_t pss_bytes = 0;  // median of the samples
};

class Comparison {
 public:
  explicit Comparison(const Options& options)
      : options_(options),
        program_(WideloadProgram()),
        folder_(std::filesystem::temp_directory_path() / fmt::format("bench-{}", ::getpid())) {
    std::filesystem::create_directory(folder_);
    std::ofstream out(folder_ / "rows.jsonl");
    for (int i = 0; i < options.requests; ++i) {
      out << fmt::format("{{\"task_id\": {}, \"output_tokens\": {}, \"input_ids\": [", i,
                         options.output_tokens);
      for (int j = 0; j < options.prompt_tokens; ++j)
        out << fmt::format("{}{}", j == 0 ? "" : ",", (i * 131 + j * 17) % 4000 + 100);
      out << "]}\n";
    }
  }
  ~Comparison() { std::filesystem::remove_all(folder_); }

  void Run() {
    std::vector<double> speed;
    std::vector<double> memory;
    std::printf("%s, %d cores; %d ranks, %d requests of %d + %d tokens, %d at once\n",
                ThisCpu().brand.c_str(), NumAllowedCpus(), options_.ranks, options_.requests,
                options_.prompt_tokens, options_.output_tokens, options_.concurrency);
    for (int pair = 0; pair < options_.pairs; ++pair) {
      const Figures processes = Measure(true);
      const Figures threads = Measure(false);
      speed.push_back(processes.tokens_per_s / threads.tokens_per_s);
      memory.push_back(static_cast<double>(processes.pss_bytes) /
                       static_cast<double>(threads.pss_bytes));
      std::printf("pair %d: processes %.0f tokens/s, %.1f MiB; threads %.0f, %.1f\n", pair,
                  processes.tokens_per_s, Mib(processes), threads.tokens_per_s, Mib(threads));
      if (processes_output_ != threads_output_)
        Throw(ErrorKind::kRunFailed, "processes and threads gave different tokens");
    }
    Print("tokens/s of processes / threads", speed, "at least 0.9");
    Print("memory (PSS) of processes / threads", memory, "at most 1.2");
  }

 private:
  static double Mib(const Figures& figures) {
    return static_cast<double>(figures.pss_bytes) / (1 << 20);
  }

  static void Print(const char* what, std::vector<double> ratios, const char* goal) {
    std::sort(ratios.begin(), ratios.end());
    std::printf("%s: median %.3f (%.3f to %.3f) of %zu interleaved pairs; goal: %s\n", what,
                ratios[ratios.size() / 2], ratios.front(), ratios.back(), ratios.size(), goal);
  }

  Figures Measure(bool are_processes) {
    const std::string report = folder_ / "report.json";
    const std::string output = folder_ / "output.jsonl";
    std::vector<std::string> command = are_processes ? MpirunCommand(options_.ranks, program_)
                                                     : std::vector<std::string>{program_};
    command.insert(
        command.end(),
        {"bench", "throughput", "-m", options_.model, "--dataset", folder_ / "rows.jsonl",
         "--threads", "1", "--concurrency", std::to_string(options_.concurrency), "--warmup",
         std::to_string(options_.concurrency / 2), "--report-json", report, "--output", output});
    command.insert(command.end(), options_.more.begin(), options_.more.end());
    if (!are_processes) command.insert(command.end(), {"--ep", std::to_string(options_.ranks)});
    ProgramRun run(command);
    Figures figures;
    const int num_processes = are_processes ? options_.ranks : 1;
    std::vector<int64_t> samples;
    while (!run.WaitFor(milliseconds(250))) {
      samples.push_back(0);
      for (const pid_t pid : run.Ranks(program_, num_processes))
        samples.back() += pid > 0 ? PssBytes(pid) : 0;
    }
    std::sort(samples.begin(), samples.end());
    figures.pss_bytes = samples.at(samples.size() / 2);
    if (run.WaitFor(milliseconds(0)) != 0) Throw(ErrorKind::kRunFailed, "{}", run.Stderr());
    figures.tokens_per_s =
        ParseJson(ReadFile(report), report)["performance"]["system_output_throughput_tok_s"]
            .get<double>();
    (are_processes ? processes_output_ : threads_output_) = ReadFile(output);
    return figures;
  }

  Options options_;
  std::string program_;
  std::filesystem::path folder_;
  std::string processes_output_;
  std::string threads_output_;
};

}  // namespace
}  // namespace wideload

int main(int argc, char** argv) {
  wideload::Options options;
  CLI::App app("Ranks as processes against ranks as threads. What follows -- goes to both.");
  app.add_option("--ranks", options.ranks)->capture_default_str();
  app.add_option("--pairs", options.pairs)->capture_default_str();
  app.add_option("--requests", options.requests)->capture_default_str();
  app.add_option("--prompt-tokens", options.prompt_tokens)->capture_default_str();
  app.add_option("--output-tokens", options.output_tokens)->capture_default_str();
  app.add_option("--concurrency", options.concurrency)->capture_default_str();
  app.add_option("--model", options.model)->capture_default_str();
  app.add_option("more", options.more, "flags of wideload bench throughput");
  CLI11_PARSE(app, argc, argv);
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  try {
    wideload::Comparison(options).Run();
  } catch (const wideload::Error& error) {
    std::fprintf(stderr, "bench_processes: %s\n", error.what());
    return 1;
  }
  return 0;
}
