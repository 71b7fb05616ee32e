// Prefill and decode of whole models on one rank against what bounds them, measured in the same
// run: multiply-adds in registers alone, and plain reading of the weights that are touched.
// Usage: bench_model [--model FOLDER...] [--threads N...] [--kernels NAME] [--repetitions N]
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "base/file.h"
#include "core_bounds.h"
#include "kv/paged_cache.h"
#include "loaded_model.h"
#include "model_work.h"
#include "runtime/engine.h"

namespace wideload::bench {
namespace {

constexpr std::array<int64_t, 2> kPrompts = {512, 2048};
constexpr std::array<int64_t, 3> kBatches = {1, 4, 16};
constexpr int64_t kDecodePrompt = 16;
constexpr int64_t kDecodeSteps = 12;
constexpr int64_t kMaxTokens = 4096;

struct Options {
  std::vector<std::string> models = {WIDELOAD_MODELS_DIR "/wideload-14m"};
  std::vector<int> threads = {1, 2};
  std::string kernels = "auto";
  int repetitions = 3;
};

// One rank of one thread: CPU time of the process, whose other threads wait then.
Clock ClockOf(int threads) {
  return {.id = threads == 1 ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC};
}

runtime::EngineOptions OptionsFor(const LoadedModel& loaded, int threads) {
  runtime::EngineOptions options;
  options.kernels = loaded.kernels;
  options.layout = parallel::DataParallel(1);
  options.threads_per_rank = threads;
  options.max_num_tokens = kMaxTokens;
  options.max_seq_len = std::min<int64_t>(loaded.config.max_position_embeddings, kMaxTokens);
  options.num_kv_blocks = 4 * kv::BlocksFor(kMaxTokens);
  return options;
}

// Seconds of work, and the seconds that the bounds of the same moment allow.
struct Times {
  std::vector<double> seconds;
  std::vector<double> share;  // bound / seconds
  void Add(double time, double bound) {
    seconds.push_back(time);
    share.push_back(bound / time);
  }
};

class ModelBench {
 public:
  ModelBench(const LoadedModel& loaded, int threads)
      : loaded_(loaded),
        threads_(threads),
        clock_(ClockOf(threads)),
        pool_("read", threads),
        work_(*loaded.model, compute::PrecisionOf(loaded.kernels).kv_cache),
        engine_(*loaded.model, OptionsFor(loaded, threads)) {
    engine_.CountRouted();
    // Memory that was never written is one page of zeros, and reading it is no reading of memory.
    std::memset(arena_.data(), 1, static_cast<size_t>(arena_.num_bytes()));
  }

  void Run(int repetitions) {
    for (int i = -1; i < repetitions; ++i) {
      is_warmup_ = i < 0;  // memory is touched for the first time
      peak_ = PeakGflops(loaded_.kernels) * 1e9 * threads_;
      read_ = ReadGbytes({arena_.data(), static_cast<size_t>(arena_.num_bytes())}, pool_,
                         ClockFor(threads_)) *
              1e9;
      if (!is_warmup_) peaks_.push_back(peak_ * 1e-9);
      if (!is_warmup_) reads_.push_back(read_ * 1e-9);
      for (const int64_t tokens : kPrompts)
        if (tokens < engine_.options().max_seq_len) Prefill(tokens);
      for (const int64_t batch : kBatches) Decode(batch);
    }
  }
  void Print() const;
  // Seconds of a decode iteration of one request.
  double DecodeSeconds() const { return Median(decode_.at(1).seconds); }

 private:
  void Submit(int64_t tokens, int64_t max_tokens) {
    runtime::Request request;
    request.prompt = RandomPrompt(loaded_, tokens, random_);
    request.max_tokens = max_tokens;
    engine_.Submit(std::move(request));
  }
  double StepSeconds() {
    const double start = clock_.Seconds();
    for (const runtime::Event& event : engine_.Step())
      if (event.finish == runtime::FinishReason::kError)
        Throw(ErrorKind::kRunFailed, "{}", event.error);
    return clock_.Seconds() - start;
  }
  void Prefill(int64_t tokens) {
    Submit(tokens, 1);
    const double seconds = StepSeconds();
    if (is_warmup_) return;
    const double compute = work_.PromptFlops(tokens) / peak_;
    const double memory = work_.Bytes(engine_.routed_counts()) / read_;
    prefill_[tokens].Add(seconds, std::max(compute, memory));
  }
  void Decode(int64_t batch) {
    for (int64_t i = 0; i < batch; ++i) Submit(kDecodePrompt, kDecodeSteps + 1);
    StepSeconds();  // the prompts
    double seconds = 0, bytes = 0;
    for (int64_t step = 0; step < kDecodeSteps; ++step) {
      seconds += StepSeconds();
      bytes += work_.Bytes(engine_.routed_counts());
    }
    if (is_warmup_) return;
    const double keys = kDecodePrompt + 0.5 * kDecodeSteps;
    bytes += static_cast<double>(kDecodeSteps * batch * work_.kv_bytes_per_token) * keys;
    decode_[batch].Add(seconds / kDecodeSteps, bytes / kDecodeSteps / read_);
  }

  const LoadedModel& loaded_;
  int threads_;
  Clock clock_;
  ThreadPool pool_;
  ModelWork work_;
  runtime::Engine engine_;
  Buffer arena_{int64_t{1} << 30};
  std::mt19937 random_{1};
  bool is_warmup_ = true;
  double peak_ = 0;  // of the current repetition, per second
  double read_ = 0;
  std::vector<double> peaks_;
  std::vector<double> reads_;
  std::map<int64_t, Times> prefill_;  // by tokens
  std::map<int64_t, Times> decode_;   // by batch
};

void ModelBench::Print() const {
  fmt::print("  {} threads; bounds: {:.0f} GFLOP/s in registers, {:.1f} GB/s read\n", threads_,
             Median(peaks_), Median(reads_));
  const auto line = [](const std::string& what, int64_t tokens, const Times& times) {
    const auto [least, most] = std::minmax_element(times.share.begin(), times.share.end());
    fmt::print(
        "    {:<18} {:>9.1f} tokens/s {:>9.2f} ms   {:>5.1f} % of the bound [{:.0f}-{:.0f}]\n",
        what, static_cast<double>(tokens) / Median(times.seconds), 1e3 * Median(times.seconds),
        100 * Median(times.share), 100 * *least, 100 * *most);
  };
  for (const auto& [tokens, times] : prefill_)
    line(fmt::format("prefill {}", tokens), tokens, times);
  for (const auto& [batch, times] : decode_)
    line(fmt::format("decode batch {}", batch), batch, times);
}

// What reading and packing at memory speed take: the bytes of the folder, each read once and stored
// once to memory that is touched for the first time.
double CopySeconds(const std::string& folder, ThreadPool& pool, const Clock& clock) {
  std::vector<MappedFile> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.path().extension() == ".safetensors") files.emplace_back(entry.path().string());
  const double start = clock.Seconds();
  for (const MappedFile& file : files) {
    const Buffer copy(static_cast<int64_t>(file.bytes().size()));
    pool.RunRange(copy.num_bytes(), int64_t{1} << 22, [&](int64_t begin, int64_t end, int) {
      std::memcpy(copy.data() + begin, file.bytes().data() + begin,
                  static_cast<size_t>(end - begin));
    });
  }
  return clock.Seconds() - start;
}

void MeasureStart(const std::string& folder) {
  const Clock clock{.id = CLOCK_PROCESS_CPUTIME_ID};
  ThreadPool pool("copy", 1);
  CopySeconds(folder, pool, clock);  // the files come into the page cache
  std::vector<double> copies, loads;
  for (int i = 0; i < 3; ++i) {
    copies.push_back(CopySeconds(folder, pool, clock));
    const double start = clock.Seconds();
    const LoadedModel loaded = Load(folder);
    loads.push_back(clock.Seconds() - start);
  }
  fmt::print(
      "  start: {:.2f} s of CPU time, copying the files to new memory {:.2f} s: {:.2f} times\n",
      Median(loads), Median(copies), Median(loads) / Median(copies));
}

int Run(int argc, char** argv) {
  CLI::App app("prefill and decode against what bounds them");
  Options options;
  app.add_option("--model", options.models, "folders");
  app.add_option("--threads", options.threads)->check(CLI::PositiveNumber);
  app.add_option("--kernels", options.kernels);
  app.add_option("--repetitions", options.repetitions)->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);
  const compute::KernelSet kernels = compute::ParseKernelSet(options.kernels);
  for (const int threads : options.threads) PrintMachine(threads);
  fmt::print("kernels {}, {} repetitions, medians; one thread: CPU time of the process\n",
             KernelSetName(kernels), options.repetitions);
  for (const std::string& folder : options.models) {
    fmt::print("{}\n", std::filesystem::path(folder).filename().string());
    MeasureStart(folder);
    const LoadedModel loaded = Load(folder, kernels);
    for (const int threads : options.threads) {
      ModelBench bench(loaded, threads);
      bench.Run(options.repetitions);
      bench.Print();
      fmt::print(
          "    decode batch 1: {:.0f} us for each layer\n",
          1e6 * bench.DecodeSeconds() / static_cast<double>(loaded.model->spec().num_layers()));
    }
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace
}  // namespace wideload::bench

int main(int argc, char** argv) {
  try {
    return wideload::bench::Run(argc, argv);
  } catch (const wideload::Error& error) {
    fmt::print(stderr, "bench_model: {}\n", error.what());
    return wideload::ExitCode(error.kind());
  }
}
