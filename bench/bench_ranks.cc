// The cost of ranks: the prompts of the embedded model on 8 ranks x 1 thread against 1 rank x 2
// threads, in turns on the same machine; the same of replicas and of the online balancer against
// none; memory; and what recording expert statistics and watching an engine cost.
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <memory>

#include "base/cpu_info.h"
#include "dataset.h"
#include "kv/paged_cache.h"
#include "loaded_model.h"
#include "runtime/engine.h"
#include "runtime/engine_monitor.h"
#include "tokenizer/tokenizer.h"

namespace wideload {
namespace {

using bench::Load;
using bench::LoadedModel;
using Clock = std::chrono::steady_clock;

struct Options {
  std::string model = WIDELOAD_MODELS_DIR "/wideload-14m";
  std::vector<std::string> parts = {"speed",  "slots",      "balancer",
                                    "memory", "statistics", "watching"};
  int num_pairs = 9;
  int64_t concurrency = 64;
};

// All prompts of the folder, files in order of their names.
std::vector<apps::DatasetRow> ReadPrompts(const std::string& folder) {
  const auto tokenizer = tokenizer::Tokenizer::FromFile(folder + "/tokenizer.json");
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder + "/prompts"))
    files.push_back(entry.path().string());
  std::sort(files.begin(), files.end());
  std::vector<apps::DatasetRow> rows;
  for (const std::string& file : files)
    for (apps::DatasetRow& row : apps::ReadDataset(file, &tokenizer, {}))
      rows.push_back(std::move(row));
  return rows;
}

struct Layout {
  int32_t num_ranks;
  int32_t threads;
  int32_t num_slots = 0;  // 0: one per expert
};
constexpr Layout kOneRank{1, 2};
constexpr Layout kEightRanks{8, 1};

// As `wideload bench throughput` chooses them by default.
runtime::EngineOptions OptionsFor(const LoadedModel& loaded, const Layout& layout) {
  runtime::EngineOptions options;
  options.kernels = loaded.kernels;
  options.layout = parallel::DataParallel(layout.num_ranks);
  options.threads_per_rank = layout.threads;
  options.num_slots = layout.num_slots;
  options.max_seq_len = loaded.config.max_position_embeddings;
  options.num_kv_blocks = options.max_batch_size * kv::BlocksFor(options.max_seq_len);
  return options;
}

// One run of all prompts.
struct Pass {
  double seconds = 0;
  int64_t output_tokens = 0;
  runtime::ExchangeFigures exchange;

  double TokensPerSecond() const { return static_cast<double>(output_tokens) / seconds; }
};

Pass RunPrompts(runtime::Engine& engine, const std::vector<apps::DatasetRow>& rows,
                int64_t concurrency, runtime::EngineMonitor* monitor = nullptr) {
  Pass pass;
  const runtime::ExchangeFigures before = engine.exchange_figures();
  const auto start = Clock::now();
  size_t next = 0;
  int64_t in_flight = 0;
  while (next < rows.size() || in_flight > 0) {
    for (; next < rows.size() && in_flight < concurrency; ++next, ++in_flight) {
      runtime::Request request;
      request.prompt = rows[next].ids;
      request.max_tokens = rows[next].output_tokens;
      request.index = next;
      engine.Submit(std::move(request));
    }
    for (const runtime::Event& event : engine.Step()) {
      if (event.finish == runtime::FinishReason::kError)
        Throw(ErrorKind::kRunFailed, "{}", event.error);
      pass.output_tokens += event.token >= 0 ? 1 : 0;
      in_flight -= event.finish != runtime::FinishReason::kNone ? 1 : 0;
    }
    if (monitor != nullptr) monitor->Note(0);
  }
  pass.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  pass.exchange = engine.exchange_figures() - before;
  return pass;
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

std::string LoadAverage() {
  std::ifstream file("/proc/loadavg");
  std::string one, five;
  file >> one >> five;
  return one + " (1 min), " + five + " (5 min)";
}

void PrintWaits(const runtime::ExchangeFigures& exchange) {
  std::printf(
      "  waits of 8 ranks: %.1f rounds per iteration;",
      static_cast<double>(exchange.num_rounds) / static_cast<double>(exchange.num_iterations));
  for (int kind = 0; kind < exchange::kNumWaitKinds; ++kind) {
    const auto wait_kind = static_cast<exchange::WaitKind>(kind);
    std::printf(" %.1f per iteration for %s, %.1f us each;", exchange.WaitsPerIteration(wait_kind),
                runtime::WaitKindName(wait_kind), exchange.MicrosecondsPerWait(wait_kind));
  }
  std::printf(" imbalance of computed rows %.2f\n", exchange.MeanImbalance());
}

// Passes of two engines in turns over the same prompts.
struct Comparison {
  std::vector<double> rates, other_rates, ratios;  // ratio: rate / other rate
  Pass last;                                       // of the first engine

  void Print(const char* name, const char* other_name, const char* goal) const {
    const auto [least, most] = std::minmax_element(ratios.begin(), ratios.end());
    std::printf("  output tokens/s: %s %.0f, %s %.0f (medians of %zu pairs)\n", name, Median(rates),
                other_name, Median(other_rates), ratios.size());
    std::printf("  ratio: median %.3f, %.3f to %.3f   goal >= %s\n", Median(ratios), *least, *most,
                goal);
  }
};

Comparison Compare(const Options& options, const std::vector<apps::DatasetRow>& rows,
                   runtime::Engine& engine, runtime::Engine& other) {
  const std::vector<apps::DatasetRow> first(rows.begin(), rows.begin() + 64);
  RunPrompts(other, first, options.concurrency);
  RunPrompts(engine, first, options.concurrency);
  Comparison comparison;
  for (int pair = 0; pair < options.num_pairs; ++pair) {
    // Who goes first changes, so that a drift of the machine favours neither.
    Pass passes[2];
    for (int i = 0; i < 2; ++i) {
      const bool is_other = (pair + i) % 2 == 0;
      passes[is_other ? 1 : 0] = RunPrompts(is_other ? other : engine, rows, options.concurrency);
    }
    comparison.rates.push_back(passes[0].TokensPerSecond());
    comparison.other_rates.push_back(passes[1].TokensPerSecond());
    comparison.ratios.push_back(comparison.rates.back() / comparison.other_rates.back());
    comparison.last = passes[0];
  }
  return comparison;
}

void MeasureSpeed(const Options& options) {
  const LoadedModel loaded = Load(options.model);
  const std::vector<apps::DatasetRow> rows = ReadPrompts(options.model);
  runtime::Engine one(*loaded.model, OptionsFor(loaded, kOneRank));
  runtime::Engine eight(*loaded.model, OptionsFor(loaded, kEightRanks));
  const Comparison comparison = Compare(options, rows, eight, one);
  std::printf("speed: %zu prompts, %lld output tokens, %lld at a time, kernels %s\n", rows.size(),
              static_cast<long long>(comparison.last.output_tokens),
              static_cast<long long>(options.concurrency),
              std::string(KernelSetName(loaded.kernels)).c_str());
  comparison.Print("8 ranks x 1 thread", "1 rank x 2 threads", "0.9");
  PrintWaits(comparison.last.exchange);
}

// What replicas cost where they gain nothing, two cores being as busy either way.
void MeasureSlots(const Options& options) {
  const LoadedModel loaded = Load(options.model);
  const std::vector<apps::DatasetRow> rows = ReadPrompts(options.model);
  runtime::Engine plain(*loaded.model, OptionsFor(loaded, kEightRanks));
  Layout with_replicas = kEightRanks;
  with_replicas.num_slots = 80;
  runtime::Engine replicated(*loaded.model, OptionsFor(loaded, with_replicas));
  std::printf("slots: 8 ranks, contiguous, optimal split\n");
  Compare(options, rows, replicated, plain).Print("80 slots", "64 slots", "0.965");
}

double ProcessSeconds() {
  timespec time{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

// One kind of text on slots that were repaired for it before.
void MeasureBalancer(const Options& options) {
  const LoadedModel loaded = Load(options.model);
  const std::vector<apps::DatasetRow> all = ReadPrompts(options.model);
  constexpr size_t kOneKind = 48;  // prompts of a file
  std::vector<apps::DatasetRow> rows;
  for (size_t i = 0; i < 6 * kOneKind; ++i) rows.push_back(all[i % kOneKind]);
  Layout layout = kEightRanks;
  layout.num_slots = 96;
  runtime::EngineOptions engine_options = OptionsFor(loaded, layout);
  engine_options.rebalance.mode = rebalance::Mode::kRepair;
  {
    runtime::Engine engine(*loaded.model, engine_options);
    RunPrompts(engine, rows, options.concurrency);
    engine_options.placements = engine.balancer()->placements();
  }
  runtime::Engine balanced(*loaded.model, engine_options);
  engine_options.rebalance.mode = rebalance::Mode::kOff;
  runtime::Engine still(*loaded.model, engine_options);
  std::printf("balancer: 8 ranks, 96 slots, a load that they are balanced for\n");
  const double before = ProcessSeconds();
  Compare(options, rows, balanced, still).Print("repair", "off", "0.97");
  const double both_seconds = ProcessSeconds() - before;
  const rebalance::BalancerFigures figures = balanced.balancer()->figures();
  std::printf(
      "  slots fetched in all passes: %lld; the planner's thread took %.2f %% of %.1f s CPU of "
      "both\n",
      static_cast<long long>(figures.fetched_slots),
      100e-9 * static_cast<double>(figures.planning_ns) / both_seconds, both_seconds);
}

// "VmHWM" or "RssAnon" of this process, MiB.
double StatusMib(const std::string& field) {
  std::ifstream file("/proc/self/status");
  std::string line;
  while (std::getline(file, line))
    if (line.starts_with(field + ":")) return std::stod(line.substr(field.size() + 1)) / 1024;
  return 0;
}

// MiB of private memory of a process of its own that loads the model and runs all prompts.
struct Memory {
  double weights = 0;  // grown by loading
  double rest = 0;     // grown by the engine and the run: state and buffers
  double peak = 0;     // VmHWM, files and code too
};

Memory MeasureHere(const Options& options, const Layout& layout) {
  const std::vector<apps::DatasetRow> rows = ReadPrompts(options.model);
  Memory memory;
  const double before = StatusMib("RssAnon");
  const LoadedModel loaded = Load(options.model);
  const double with_weights = StatusMib("RssAnon");
  runtime::Engine engine(*loaded.model, OptionsFor(loaded, layout));
  RunPrompts(engine, rows, options.concurrency);
  memory.weights = with_weights - before;
  memory.rest = StatusMib("RssAnon") - with_weights;
  memory.peak = StatusMib("VmHWM");
  return memory;
}

Memory MeasureInChild(const Options& options, const Layout& layout) {
  int ends[2];
  if (::pipe(ends) != 0) Throw(ErrorKind::kIo, "pipe failed");
  const pid_t child = ::fork();
  if (child == 0) {
    const Memory memory = MeasureHere(options, layout);
    const bool written = ::write(ends[1], &memory, sizeof(memory)) == sizeof(memory);
    std::_Exit(written ? 0 : 1);
  }
  ::close(ends[1]);
  Memory memory;
  const bool read = ::read(ends[0], &memory, sizeof(memory)) == sizeof(memory);
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  if (!read || status != 0) Throw(ErrorKind::kRunFailed, "the process that measures memory failed");
  return memory;
}

// What of the rest is exchange buffers: segments and index, in full though not all of it is used.
double ExchangeMib(const LoadedModel& loaded, const Layout& layout) {
  const moe::MoeShape& shape = loaded.model->spec().moe;
  const runtime::EngineOptions options = OptionsFor(loaded, layout);
  const exchange::ExchangeShape exchange = moe::MakeExchangeShape(
      shape,
      {.num_ranks = layout.num_ranks,
       .num_slots =
           layout.num_slots > 0 ? layout.num_slots : static_cast<int32_t>(shape.num_experts),
       .chunk_tokens = options.max_num_tokens},
      compute::PrecisionOf(options.kernels));
  return static_cast<double>(layout.num_ranks * (exchange::SegmentBytes(exchange) +
                                                 exchange::ScratchBytes(exchange))) /
         (1 << 20);
}

void MeasureMemory(const Options& options) {
  const Memory one = MeasureInChild(options, kOneRank);
  const Memory eight = MeasureInChild(options, kEightRanks);
  Layout with_replicas = kEightRanks;
  with_replicas.num_slots = 96;
  const Memory replicated = MeasureInChild(options, with_replicas);
  const LoadedModel loaded = Load(options.model);
  const auto print = [&](const char* name, const Layout& layout, const Memory& memory) {
    std::printf(
        "  %s: weights %.1f, state and buffers %.1f (exchange buffers reserved: %.1f), peak of the "
        "process %.1f\n",
        name, memory.weights, memory.rest, ExchangeMib(loaded, layout), memory.peak);
  };
  std::printf("memory, MiB resident after all prompts, one process each:\n");
  print("1 rank ", kOneRank, one);
  print("8 ranks", kEightRanks, eight);
  print("8 ranks, 96 slots", with_replicas, replicated);
  // Weights alone say only that they are shared. The goal leaves out slots (which cost nothing: the
  // ranks share the weights) and exchange buffers, not KV cache and workspaces.
  const auto rest = [&](const Layout& layout, const Memory& memory) {
    return memory.weights + memory.rest - ExchangeMib(loaded, layout);
  };
  std::printf(
      "  8 ranks / 1 rank: weights %.3f; all but the reserved exchange buffers %.2f   goal "
      "<= 1.15\n",
      eight.weights / one.weights, rest(kEightRanks, eight) / rest(kOneRank, one));
  std::printf("  96 viewed slots / 64, all of it: %.3f   goal <= 1.02\n",
              (replicated.weights + replicated.rest) / (eight.weights + eight.rest));
}

double ThreadSeconds() {
  timespec time{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

// Thread CPU seconds to record `recorded` once more, call by call as the ranks did. Before each
// rank's iteration the caches are filled with other things, as the iteration itself does.
double ReplaySeconds(const statistics::ExpertStatistics& recorded, statistics::Recorder& recorder) {
  constexpr size_t kEvictedBytes = size_t{4} << 20;
  std::vector<char> other(kEvictedBytes);
  const auto experts = static_cast<size_t>(recorded.num_experts);
  std::vector<int32_t> counts(recorded.num_layers() * experts);
  double seconds = 0;
  for (int64_t i = 0; i < recorded.num_iterations; ++i) {
    for (int32_t r = 0; r < recorded.num_ranks; ++r) {
      for (char& c : other) c = static_cast<char>(c + 1);
      for (size_t l = 0; l < recorded.num_layers(); ++l)
        std::copy_n(recorded.Row(i, l, r).begin(), experts,
                    counts.begin() + static_cast<std::ptrdiff_t>(l * experts));
      const double start = ThreadSeconds();
      for (size_t l = 0; l < recorded.num_layers(); ++l)
        recorder.Record(EpRank(r), recorded.iter_start + i, LayerId(recorded.layers[l]),
                        std::span(counts).subspan(l * experts, experts));
      recorder.EndIteration(EpRank(r), recorded.iter_start + i);
      seconds += ThreadSeconds() - start;
    }
  }
  return seconds;
}

void MeasureStatistics(const Options& options) {
  const LoadedModel loaded = Load(options.model);
  const std::vector<apps::DatasetRow> rows = ReadPrompts(options.model);
  const statistics::RecorderOptions recording{
      .num_ranks = kEightRanks.num_ranks,
      .layers = loaded.model->spec().moe.layers,
      .num_experts = static_cast<int32_t>(loaded.config.num_experts),
      .experts_per_token = static_cast<int32_t>(loaded.config.top_k)};
  statistics::Recorder recorder(recording);
  runtime::Engine engine(*loaded.model, OptionsFor(loaded, kEightRanks));
  engine.SetRecorder(&recorder);
  const double before = ProcessSeconds();
  RunPrompts(engine, rows, options.concurrency);
  const double run = ProcessSeconds() - before;
  const statistics::ExpertStatistics recorded = recorder.Statistics();
  statistics::Recorder again(recording);
  const double replay = ReplaySeconds(recorded, again);
  if (again.Statistics() != recorded)
    Throw(ErrorKind::kRunFailed, "the replay recorded other counts");
  const auto iterations = static_cast<double>(recorded.num_iterations);
  std::printf(
      "statistics, 8 ranks, %lld iterations: thread CPU time of Recorder::Record and "
      "EndIteration, replayed with the run's counts and cold caches, clock reads included\n",
      static_cast<long long>(recorded.num_iterations));
  std::printf("  %.2f us of %.1f us CPU per iteration of all ranks: %.3f %%   goal < 1 %%\n",
              replay * 1e6 / iterations, run * 1e6 / iterations, 100 * replay / run);
}

// Thread CPU seconds of what ranks do more where routed tokens are counted, in so many iterations:
// loops as in MoeRunner, with cold caches as in ReplaySeconds, clock reads included.
double CountingSeconds(int32_t num_ranks, size_t num_layers, size_t num_experts,
                       int64_t num_iterations) {
  constexpr size_t kEvictedBytes = size_t{4} << 20;
  std::vector<char> other(kEvictedBytes);
  std::vector<std::vector<int32_t>> routed(static_cast<size_t>(num_ranks));
  for (std::vector<int32_t>& of_rank : routed) of_rank.resize(num_layers * num_experts);
  double seconds = 0;
  for (int64_t i = 0; i < num_iterations; ++i) {
    for (std::vector<int32_t>& of_rank : routed) {
      for (char& c : other) c = static_cast<char>(c + 1);
      const double start = ThreadSeconds();
      std::fill(of_rank.begin(), of_rank.end(), 0);
      for (int32_t& count : of_rank) count += 1;
      seconds += ThreadSeconds() - start;
    }
  }
  return seconds;
}

// What a server does for its dashboard and metrics: counts of routed tokens, and sums of them. Of
// whole runs even two engines that nobody watches differ by more, so what the engine's thread does
// more is told apart, and what ranks do more, which a replay measures; these are the cost.
void MeasureWatching(const Options& options) {
  const LoadedModel loaded = Load(options.model);
  const std::vector<apps::DatasetRow> rows = ReadPrompts(options.model);
  for (const Layout& layout : {Layout{1, 1}, kEightRanks}) {
    runtime::Engine plain(*loaded.model, OptionsFor(loaded, layout));
    runtime::Engine other(*loaded.model, OptionsFor(loaded, layout));
    runtime::Engine watched(*loaded.model, OptionsFor(loaded, layout));
    runtime::Engine* const engines[] = {&plain, &other, &watched};
    runtime::EngineMonitor monitor(watched);
    std::vector<double> ratios, others, added;
    double plain_seconds = 0;
    for (int pair = 0; pair < options.num_pairs; ++pair) {
      double seconds[3], of_thread[3];
      for (int i = 0; i < 3; ++i) {
        const int which = (pair + i) % 3;
        const double before = ProcessSeconds(), thread_before = ThreadSeconds();
        RunPrompts(*engines[which], rows, options.concurrency, which == 2 ? &monitor : nullptr);
        seconds[which] = ProcessSeconds() - before;
        of_thread[which] = ThreadSeconds() - thread_before;
      }
      ratios.push_back(seconds[2] / seconds[0]);
      others.push_back(seconds[1] / seconds[0]);
      plain_seconds += seconds[0];
      added.push_back((of_thread[2] - of_thread[0]) / seconds[0]);
    }
    for (std::vector<double>* figures : {&ratios, &others, &added})
      std::sort(figures->begin(), figures->end());
    const int64_t num_iterations = (plain.last_iteration().iteration + 1) / options.num_pairs;
    const double counting =
        CountingSeconds(layout.num_ranks, loaded.model->spec().moe.layers.size(),
                        static_cast<size_t>(loaded.config.num_experts), num_iterations) /
        (plain_seconds / options.num_pairs);
    std::printf(
        "watching, %d ranks, %d interleaved runs: CPU time over that of an engine that nobody "
        "watches: median %.4f [%.4f-%.4f]; of another one that nobody watches %.4f [%.4f-%.4f]\n",
        layout.num_ranks, options.num_pairs, ratios[ratios.size() / 2], ratios.front(),
        ratios.back(), others[others.size() / 2], others.front(), others.back());
    const double of_thread = added[added.size() / 2];
    std::printf(
        "  the engine's thread takes more by: median %.3f %% of it [%.3f-%.3f]; ranks count for "
        "%.3f %% of it: together %.3f %%   goal < 1 %%\n",
        100 * of_thread, 100 * added.front(), 100 * added.back(), 100 * counting,
        100 * (of_thread + counting));
  }
}

int Main(int argc, char** argv) {
  Options options;
  CLI::App app("cost of ranks: speed, memory, statistics of 8 ranks against 1");
  app.add_option("--part", options.parts,
                 "speed, slots, balancer, memory, statistics, watching (default: all)")
      ->check(CLI::IsMember({"speed", "slots", "balancer", "memory", "statistics", "watching"}));
  app.add_option("--pairs", options.num_pairs, "interleaved pairs of runs")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--concurrency", options.concurrency, "requests in flight")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--model", options.model, "folder with prompts/")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  std::printf("machine: %s, %d cores; load average at start: %s\n", ThisCpu().brand.c_str(),
              NumAllowedCpus(), LoadAverage().c_str());
  for (const std::string& part : options.parts) {
    if (part == "memory") MeasureMemory(options);
    if (part == "speed") MeasureSpeed(options);
    if (part == "slots") MeasureSlots(options);
    if (part == "balancer") MeasureBalancer(options);
    if (part == "statistics") MeasureStatistics(options);
    if (part == "watching") MeasureWatching(options);
    std::fflush(stdout);
  }
  std::printf("load average at end: %s\n", LoadAverage().c_str());
  return 0;
}

}  // namespace
}  // namespace wideload

int main(int argc, char** argv) {
  try {
    return wideload::Main(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "bench_ranks: error: %s\n", e.what());
    return 1;
  }
}
