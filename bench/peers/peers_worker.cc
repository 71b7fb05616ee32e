// The engine of this project as a worker of bench_peers; worker.py says what its lines mean.
// Usage: peers_worker FOLDER THREADS
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <ctime>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "bench_timing.h"
#include "kv/paged_cache.h"
#include "loaded_model.h"
#include "runtime/engine.h"

namespace wideload::bench {
namespace {

constexpr int64_t kDecodePrompt = 16;
constexpr int64_t kMaxBatch = 16;
constexpr int64_t kMaxTokens = 4096;

std::vector<int32_t> Prompt(int64_t tokens, int64_t seed, int64_t vocab_size) {
  std::vector<int32_t> ids;
  int64_t state = seed;
  for (int64_t i = 0; i < tokens; ++i) {
    state = (state * 1103515245 + 12345) % (int64_t{1} << 31);
    ids.push_back(static_cast<int32_t>((state >> 8) % vocab_size));
  }
  return ids;
}

// Wall and CPU time of the process since it was made.
class Watch {
 public:
  std::string Line(double parts) const {
    return fmt::format("{:.9f} {:.9f}", (wall_.Seconds() - wall_start_) / parts,
                       (cpu_.Seconds() - cpu_start_) / parts);
  }

 private:
  Clock wall_{.id = CLOCK_MONOTONIC};
  Clock cpu_{.id = CLOCK_PROCESS_CPUTIME_ID};
  double wall_start_ = wall_.Seconds();
  double cpu_start_ = cpu_.Seconds();
};

class Worker {
 public:
  Worker(const LoadedModel& loaded, int threads)
      : vocab_size_(loaded.model->spec().vocab_size),
        engine_(*loaded.model, Options(loaded, threads)) {}

  std::string Prefill(int64_t tokens, int64_t seed) {
    Submit(Prompt(tokens, seed, vocab_size_), 1);
    const Watch watch;
    Step();
    return watch.Line(1);
  }
  std::string Decode(int64_t batch, int64_t steps, int64_t seed) {
    for (int64_t i = 0; i < batch; ++i)
      Submit(Prompt(kDecodePrompt, seed * kMaxBatch + i, vocab_size_), steps + 1);
    Step();  // the prompts
    const Watch watch;
    for (int64_t i = 0; i < steps; ++i) Step();
    return watch.Line(static_cast<double>(steps));
  }
  std::string Greedy(int64_t tokens, int64_t count, int64_t seed) {
    Submit(Prompt(tokens, seed, vocab_size_), count);
    std::string line;
    for (int64_t i = 0; i < count; ++i) line += fmt::format("{} ", Step());
    return line;
  }

 private:
  static runtime::EngineOptions Options(const LoadedModel& loaded, int threads) {
    runtime::EngineOptions options;
    options.kernels = loaded.kernels;
    options.layout = parallel::DataParallel(1);
    options.threads_per_rank = threads;
    options.max_num_tokens = kMaxTokens;
    options.max_seq_len = std::min<int64_t>(loaded.config.max_position_embeddings, kMaxTokens);
    options.num_kv_blocks = 4 * kv::BlocksFor(kMaxTokens);
    return options;
  }
  void Submit(std::vector<int32_t> prompt, int64_t max_tokens) {
    runtime::Request request;
    request.prompt = std::move(prompt);
    request.max_tokens = max_tokens;
    engine_.Submit(std::move(request));
  }
  // The last token of the step.
  int32_t Step() {
    int32_t token = -1;
    for (const runtime::Event& event : engine_.Step()) {
      if (event.finish == runtime::FinishReason::kError)
        Throw(ErrorKind::kRunFailed, "{}", event.error);
      token = event.token;
    }
    return token;
  }

  int64_t vocab_size_;
  runtime::Engine engine_;
};

void Serve(const std::string& folder, int threads) {
  const LoadedModel loaded = Load(folder);
  Worker worker(loaded, threads);
  std::cout << fmt::format("wideload, bf16, kernels {}", KernelSetName(loaded.kernels))
            << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string what;
    std::array<int64_t, 3> numbers = {};
    words >> what;
    for (int64_t& number : numbers) words >> number;
    if (what == "prefill") std::cout << worker.Prefill(numbers[0], numbers[1]) << std::endl;
    if (what == "decode")
      std::cout << worker.Decode(numbers[0], numbers[1], numbers[2]) << std::endl;
    if (what == "greedy")
      std::cout << worker.Greedy(numbers[0], numbers[1], numbers[2]) << std::endl;
  }
}

}  // namespace
}  // namespace wideload::bench

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: peers_worker FOLDER THREADS\n";
    return 2;
  }
  try {
    wideload::bench::Serve(argv[1], std::atoi(argv[2]));
    return 0;
  } catch (const wideload::Error& error) {
    std::cerr << "peers_worker: " << error.what() << '\n';
    return wideload::ExitCode(error.kind());
  }
}
