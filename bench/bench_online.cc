// Online balancing: nine kinds of text, one after the other, on eight ranks. The engine serves them
// with repair and records what was routed; every other policy is replayed on the same counts.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <ctime>

#include "base/cpu_info.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/model_config.h"
#include "eplb/placement/even_split.h"
#include "eplb/policies/tensorrt_llm_policy.h"
#include "kv/paged_cache.h"
#include "model/registry.h"
#include "model/transformer.h"
#include "online_load.h"
#include "rebalance/replay.h"
#include "statistics/recorder.h"

namespace wideload {
namespace {

using rebalance::Mode;
using rebalance::Replayed;
using rebalance::ReplayedIteration;
using rebalance::ReplaySplit;

constexpr int32_t kRanks = 8;
constexpr size_t kSettled = 4;  // iterations of a domain before "from the fifth on"

struct Options {
  std::string model = WIDELOAD_MODELS_DIR "/wideload-14m";
  std::vector<int32_t> slots = {64, 72, 80, 96};
  int32_t measured_slots = 80;
  int64_t max_num_tokens = 64;  // of a rank and iteration: prompts come in over several
  int64_t num_requests = 512;
  size_t num_domains = 9;
  int32_t max_fetched_slots_per_iter = rebalance::OnlineOptions().max_fetched_slots_per_iter;
};

// What was served, iteration by iteration.
struct Recording {
  size_t num_layers = 0;
  int32_t num_experts = 0;
  std::vector<size_t> domains;  // [iterations]
  std::vector<int32_t> counts;  // [iterations, layers, experts]

  size_t num_iterations() const { return domains.size(); }
  size_t IndexInDomain(size_t iteration) const {
    size_t first = iteration;
    while (first > 0 && domains[first - 1] == domains[iteration]) --first;
    return iteration - first;
  }
  std::span<const int32_t> Row(size_t iteration, size_t layer) const {
    const auto experts = static_cast<size_t>(num_experts);
    return std::span(counts).subspan((iteration * num_layers + layer) * experts, experts);
  }
};

struct Measured {
  std::vector<ReplayedIteration> iterations;
  std::vector<std::vector<int32_t>> ids;
  double engine_cpu_s = 0;     // of the process
  double balancing_cpu_s = 0;  // of it, on the way of the iteration
  rebalance::BalancerFigures figures;
};

double ProcessSeconds() {
  timespec time{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

struct LoadedModel {
  checkpoint::ModelConfig config;
  std::unique_ptr<model::Model> model;
  compute::KernelSet kernels = compute::AutoKernelSet();
};

LoadedModel Load(const std::string& folder) {
  LoadedModel loaded;
  const model::ModelReading reading = model::ReadModel(folder);
  loaded.config = reading.config;
  checkpoint::Checkpoint weights(folder);
  ThreadPool pool("load", NumAllowedCpus());
  model::WeightLoader loader(weights, {.kernels = loaded.kernels, .pool = &pool});
  loaded.model = model::LoadTransformer(reading.spec, loader);
  return loaded;
}

runtime::EngineOptions EngineOptionsFor(const Options& options, const LoadedModel& loaded) {
  runtime::EngineOptions engine;
  engine.kernels = loaded.kernels;
  engine.layout = parallel::DataParallel(kRanks);
  engine.max_num_tokens = options.max_num_tokens;
  engine.max_batch_size = 256 / kRanks;
  engine.max_seq_len = loaded.config.max_position_embeddings;
  engine.num_kv_blocks = engine.max_batch_size * kv::BlocksFor(engine.max_seq_len);
  engine.num_slots = options.measured_slots;
  engine.deadline = std::chrono::seconds(60);
  engine.rebalance = {.mode = Mode::kRepair,
                      .max_fetched_slots_per_iter = options.max_fetched_slots_per_iter};
  return engine;
}

// Imbalance of what the ranks computed in the last iteration.
ReplayedIteration LastIteration(const runtime::Engine& engine) {
  ReplayedIteration out;
  const size_t num_layers = engine.ComputedRows(0).size();
  std::vector<double> rows(kRanks);
  for (size_t layer = 0; layer < num_layers; ++layer) {
    for (int32_t r = 0; r < kRanks; ++r) {
      const int64_t computed = engine.ComputedRows(r)[layer];
      rows[static_cast<size_t>(r)] = static_cast<double>(computed);
      out.routed_tokens += computed;
    }
    out.imbalance += eplb::ImbalanceRatio(rows) / static_cast<double>(num_layers);
  }
  return out;
}

Measured Measure(const Options& options, const LoadedModel& loaded, const OnlineLoad& load,
                 Recording& recording) {
  const moe::MoeShape& shape = loaded.model->spec().moe;
  statistics::Recorder recorder({.num_ranks = kRanks,
                                 .layers = shape.layers,
                                 .num_experts = static_cast<int32_t>(shape.num_experts),
                                 .experts_per_token = static_cast<int32_t>(shape.top_k())});
  runtime::Engine engine(*loaded.model, EngineOptionsFor(options, loaded));
  engine.SetRecorder(&recorder);
  Measured measured;
  int64_t fetched = 0;
  const double start = ProcessSeconds();
  measured.ids = Serve(engine, load, [&](size_t domain) {
    ReplayedIteration& last = measured.iterations.emplace_back(LastIteration(engine));
    const int64_t now = engine.balancer()->figures().fetched_slots;
    last.fetched_slots = static_cast<int32_t>(now - std::exchange(fetched, now));
    recording.domains.push_back(domain);
  });
  measured.engine_cpu_s = ProcessSeconds() - start;
  measured.balancing_cpu_s = static_cast<double>(engine.balancing_ns()) * 1e-9;
  measured.figures = engine.balancer()->figures();
  const statistics::ExpertStatistics recorded = statistics::SumRanks(recorder.Statistics());
  recording.num_layers = recorded.num_layers();
  recording.num_experts = recorded.num_experts;
  recording.counts.assign(recorded.counts.begin(), recorded.counts.end());
  return measured;
}

struct Row {
  std::string name;
  double whole = 0, settled = 0;
  int64_t fetched = 0;
  double most_fetched = 0;  // of a domain but the first, per layer, mean over layers
};

Row MakeRow(const std::string& name, const std::vector<ReplayedIteration>& iterations,
            const Recording& recording) {
  Row row{.name = name};
  Replayed whole, settled;
  std::vector<double> of_domain(recording.domains.back() + 1);
  for (size_t i = 0; i < iterations.size(); ++i) {
    whole.iterations.push_back(iterations[i]);
    if (recording.IndexInDomain(i) >= kSettled) settled.iterations.push_back(iterations[i]);
    row.fetched += iterations[i].fetched_slots;
    of_domain[recording.domains[i]] +=
        iterations[i].fetched_slots / static_cast<double>(recording.num_layers);
  }
  row.whole = whole.MeanImbalance();
  row.settled = settled.MeanImbalance();
  if (of_domain.size() > 1)
    row.most_fetched = *std::max_element(of_domain.begin() + 1, of_domain.end());
  return row;
}

void Print(const Row& row) {
  std::printf("  %-34s %8.4f %8.4f %9lld %9.1f\n", row.name.c_str(), row.whole, row.settled,
              static_cast<long long>(row.fetched), row.most_fetched);
}

std::vector<eplb::Placement> OfflinePlan(const Recording& recording, int32_t num_slots) {
  std::vector<eplb::Placement> plan;
  for (size_t l = 0; l < recording.num_layers; ++l) {
    std::vector<float> loads(static_cast<size_t>(recording.num_experts), 0.0F);
    for (size_t i = 0; i < recording.num_iterations() && recording.domains[i] == 0; ++i)
      for (size_t e = 0; e < loads.size(); ++e)
        loads[e] += static_cast<float>(recording.Row(i, l)[e]);
    plan.push_back(eplb::TensorRtLlmPlacement(loads, num_slots, kRanks));
  }
  return plan;
}

// TensorRT-LLM's greedy placement of each iteration by its own counts, even split.
std::vector<ReplayedIteration> Clairvoyant(const Recording& recording, int32_t num_slots) {
  std::vector<ReplayedIteration> out;
  for (size_t i = 0; i < recording.num_iterations(); ++i) {
    ReplayedIteration& iteration = out.emplace_back();
    for (size_t l = 0; l < recording.num_layers; ++l) {
      const std::span<const int32_t> row = recording.Row(i, l);
      const std::vector<float> loads(row.begin(), row.end());
      const std::vector<double> tokens(row.begin(), row.end());
      iteration.imbalance +=
          eplb::EvenSplitImbalance(eplb::TensorRtLlmPlacement(loads, num_slots, kRanks), tokens) /
          static_cast<double>(recording.num_layers);
      for (const int32_t count : row) iteration.routed_tokens += count;
    }
  }
  return out;
}

// TensorRT-LLM's balancer that sees `period` iterations as one, so that it moves 1 / period as much
// (TRTLLM_EPLB_ITERATION_INTERVAL).
std::vector<ReplayedIteration> EveryFew(const rebalance::OnlineOptions& options,
                                        const std::vector<eplb::Placement>& start,
                                        const Recording& recording, size_t period) {
  std::vector<ReplayedIteration> out;
  std::vector<eplb::Placement> now = start;
  const auto planner = rebalance::MakePlanner(options, start);
  const size_t row = recording.num_layers * static_cast<size_t>(recording.num_experts);
  for (size_t i = 0; i < recording.num_iterations(); ++i) {
    const auto counts = std::span(recording.counts).subspan(i * row, row);
    const Replayed one = rebalance::Replay({}, now, counts, ReplaySplit::kOptimal);
    out.push_back(one.iterations[0]);
    if ((i + 1) % period != 0) continue;
    for (const rebalance::LayerChange& change :
         planner->Plan({static_cast<int64_t>(i), false, counts})) {
      eplb::Placement& placement = now[static_cast<size_t>(change.moe_layer)];
      out.back().fetched_slots += eplb::CountFetchedSlots(placement, change.placement);
      placement = change.placement;
    }
  }
  return out;
}

Row Simulate(const Options& options, const Recording& recording, int32_t num_slots) {
  const std::vector<eplb::Placement> contiguous(
      recording.num_layers, eplb::ContiguousPlacement(recording.num_experts, num_slots, kRanks));
  const auto replay = [&](const char* name, const rebalance::OnlineOptions& online,
                          const std::vector<eplb::Placement>& start, ReplaySplit split) {
    const Row row = MakeRow(
        name, rebalance::Replay(online, start, recording.counts, split).iterations, recording);
    Print(row);
    return row;
  };
  std::printf("%d slots, replayed\n", num_slots);
  const rebalance::OnlineOptions off;
  const rebalance::OnlineOptions tensorrt_llm{.mode = Mode::kTensorRtLlm};
  const std::vector<eplb::Placement> offline = OfflinePlan(recording, num_slots);
  replay("contiguous", off, contiguous, ReplaySplit::kOptimal);
  replay("tensorrt_llm offline, even", off, offline, ReplaySplit::kEven);
  replay("tensorrt_llm offline, optimal", off, offline, ReplaySplit::kOptimal);
  replay("tensorrt_llm online, even", tensorrt_llm, contiguous, ReplaySplit::kEven);
  replay("tensorrt_llm online, optimal", tensorrt_llm, contiguous, ReplaySplit::kOptimal);
  const Row repair = replay(
      "repair",
      {.mode = Mode::kRepair, .max_fetched_slots_per_iter = options.max_fetched_slots_per_iter},
      contiguous, ReplaySplit::kOptimal);
  // No more fetches than twice repair's: in TensorRT-LLM's favour.
  size_t period = 1;
  Row sparse;
  do {
    period *= 2;
    sparse = MakeRow(fmt::format("tensorrt_llm every {}, optimal", period),
                     EveryFew(tensorrt_llm, contiguous, recording, period), recording);
  } while (sparse.fetched > 2 * repair.fetched && period < recording.num_iterations());
  Print(sparse);
  Print(MakeRow("clairvoyant greedy, even", Clairvoyant(recording, num_slots), recording));
  return repair;
}

void PrintCost(const Measured& measured) {
  const double seconds = measured.engine_cpu_s;
  std::printf(
      "cost: %.3f s CPU of the run's %.1f s on the engine's thread (%.2f %%), %.3f s on the "
      "planner's (%.2f %%); %lld plans late\n",
      measured.balancing_cpu_s, seconds, 100 * measured.balancing_cpu_s / seconds,
      static_cast<double>(measured.figures.planning_ns) * 1e-9,
      static_cast<double>(measured.figures.planning_ns) * 1e-7 / seconds,
      static_cast<long long>(measured.figures.num_late));
}

int Main(int argc, char** argv) {
  Options options;
  CLI::App app("online balancing: imbalance, fetches and cost, domain after domain");
  app.add_option("--slots", options.slots, "to replay, over 8 ranks")->capture_default_str();
  app.add_option("--measured-slots", options.measured_slots, "of the engine's run")
      ->capture_default_str();
  app.add_option("--max-num-tokens", options.max_num_tokens, "of a rank and iteration")
      ->check(CLI::Range(32, 4096))
      ->capture_default_str();
  app.add_option("--requests", options.num_requests, "of each domain")->capture_default_str();
  app.add_option("--domains", options.num_domains, "served")
      ->check(CLI::Range(1, 9))
      ->capture_default_str();
  app.add_option("--max-fetched-slots-per-iter", options.max_fetched_slots_per_iter, "of repair")
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  const LoadedModel loaded = Load(options.model);
  OnlineLoad load = ReadOnlineLoad(options.model);
  load.domains.resize(options.num_domains);
  load.num_requests = options.num_requests;
  Recording recording;
  const Measured measured = Measure(options, loaded, load, recording);
  std::printf("machine: %s, %d cores, kernels %s; %zu domains, %zu iterations\n",
              ThisCpu().brand.c_str(), NumAllowedCpus(),
              std::string(KernelSetName(loaded.kernels)).c_str(), load.domains.size(),
              recording.num_iterations());
  std::printf("imbalance by tokens%30s %8s %9s %9s\n", "whole", "from 5th", "fetched", "per layer");
  std::printf("%d slots, measured\n", options.measured_slots);
  const Row row = MakeRow("repair", measured.iterations, recording);
  Print(row);
  PrintCost(measured);
  for (const int32_t num_slots : options.slots) {
    const Row simulated = Simulate(options, recording, num_slots);
    if (num_slots == options.measured_slots)
      std::printf("  measured / replayed: %.2f\n", row.whole / simulated.whole);
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace
}  // namespace wideload

int main(int argc, char** argv) {
  try {
    return wideload::Main(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "bench_online: error: %s\n", e.what());
    return 1;
  }
}
