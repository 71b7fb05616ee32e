// What microbatch mode saves and costs: layers of a made-up attention and of experts on two ranks
// with a core each, in step and in microbatch mode in turns; the time of an iteration, and how long
// ranks are idle within its layers.
#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <map>
#include <memory>

#include "bench_timing.h"
#include "comm/local/local_communicator.h"
#include "comm/local/rank_threads.h"
#include "compute/testing.h"
#include "exchange/local_fabric.h"
#include "model/model.h"
#include "moe/moe_runner.h"
#include "random_experts.h"

namespace wideload {
namespace {

using Clock = std::chrono::steady_clock;
using compute::OwnedTensor;
using moe::MoeMode;

constexpr int kRanks = 2;
constexpr int64_t kHidden = 512;
constexpr int64_t kInner = 512;
constexpr int32_t kExperts = 24;
constexpr int32_t kSlots = 32;
constexpr int32_t kLayers = 8;
constexpr int kOps = 4;  // of an attention
constexpr int kIterationsPerSample = 1;

struct Case {
  const char* name;
  int64_t tokens[kRanks];
  bool is_heavy[2][kRanks];  // of even and of odd layers: holds twice as many experts as the other
};
constexpr Case kCases[] = {
    {"equal rows", {256, 256}, {{false, false}, {false, false}}},
    {"experts' rows 2 : 1", {256, 256}, {{true, false}, {true, false}}},
    {"experts' rows 2 : 1, then 1 : 2", {256, 256}, {{true, false}, {false, true}}},
    {"tokens 2 : 1", {340, 170}, {{false, false}, {false, false}}},
};

// Of even or odd layers. An equal share is 12 experts and 4 of them twice; a heavy rank has 16, the
// other one 8 of two slots each.
eplb::Placement MakePlacement(const Case& load, int parity) {
  eplb::Placement placement{.num_experts = kExperts, .num_ranks = kRanks, .slot_expert = {}};
  int32_t first = 0;
  for (int r = 0; r < kRanks; ++r) {
    const bool is_heavy = load.is_heavy[parity][r];
    const bool is_light = load.is_heavy[parity][1 - r];
    const int32_t own = is_heavy ? 16 : is_light ? 8 : 12;
    for (int32_t s = 0; s < kSlots / kRanks; ++s)
      placement.slot_expert.push_back(ExpertId(first + s % own));
    first += own;
  }
  return placement;
}

struct Weights {
  compute::KernelSet kernels = compute::AutoKernelSet();
  moe::MoeShape shape{
      .hidden = kHidden, .num_experts = kExperts, .router = {.top_k = 2}, .layers = {}};
  moe::MoeWeights experts;          // of every layer
  compute::PackedMatrix attention;  // [H, H], applied kOps times

  Weights() {
    for (int32_t layer = 0; layer < kLayers; ++layer) shape.layers.push_back(layer);
    ThreadPool pool("pack", 2);
    experts = bench::RandomExperts(kernels, shape, kInner, pool);
    attention = PackPlain(kernels, compute::PlainFormat(kernels),
                          bench::RandomMatrix(2 * kHidden, kHidden, 9), pool);
  }
};

struct Sample {
  double seconds = 0;       // of an iteration
  double idle_seconds = 0;  // in its layers, both ranks
};

double WaitedSeconds(const exchange::Exchange& exchange) {
  double seconds = 0;
  for (int kind = 0; kind < exchange::kNumWaitKinds; ++kind)
    seconds += static_cast<double>(
                   exchange.wait_statistics(static_cast<exchange::WaitKind>(kind)).total_ns) *
               1e-9;
  return seconds;
}

// One rank's part of a sample.
class RankRun {
 public:
  RankRun(const Weights& weights, int64_t num_tokens, uint32_t seed)
      : weights_(weights),
        x_(compute::RandomTensor(DType::kF32, {num_tokens, kHidden}, seed)),
        h_(DType::kF32, {num_tokens, kHidden}) {}

  // Returns how long the rank was idle within layers.
  double RunIteration(moe::MoeRunner& runner, const exchange::Exchange& exchange, ThreadPool& pool,
                      int64_t iteration, int64_t most_tokens) {
    const compute::Exec exec{weights_.kernels, &pool};
    workspace_.Reset();
    runner.BeginIteration(iteration, most_tokens);
    const double before = WaitedSeconds(exchange);
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      Attend(exec, runner);
      const Workspace::Scope scope(workspace_);
      runner.Forward(exec, workspace_, layer, weights_.experts, x_.view(), h_.view());
    }
    const double idle = WaitedSeconds(exchange) - before;
    runner.FinishIteration(exec, workspace_);
    return idle;
  }

 private:
  void Attend(const compute::Exec& exec, moe::MoeRunner& runner) {
    const Workspace::Scope scope(workspace_);
    const TensorView x =
        workspace_.TakeTensor(exec.precision().activations, {x_.view().dim(0), kHidden});
    const TensorView y = workspace_.TakeTensor(DType::kF32, {x_.view().dim(0), 2 * kHidden});
    compute::Convert(exec, x_.view(), x);
    const model::RankContext rank{.exec = exec, .workspace = &workspace_, .moe = &runner};
    for (int op = 0; op < kOps; ++op) {
      rank.MatMul(x, weights_.attention, y);
      rank.Poll();
    }
  }

  const Weights& weights_;
  OwnedTensor x_;
  OwnedTensor h_;
  Workspace workspace_;
};

Sample Measure(const Weights& weights, const Case& load, MoeMode mode) {
  const int64_t most_tokens = std::max(load.tokens[0], load.tokens[1]);
  const moe::MoeLayout layout{
      .num_ranks = kRanks, .num_slots = kSlots, .mode = mode, .chunk_tokens = most_tokens};
  const auto shape =
      moe::MakeExchangeShape(weights.shape, layout, compute::PrecisionOf(weights.kernels));
  std::vector<eplb::Placement> placements;
  for (int32_t layer = 0; layer < kLayers; ++layer)
    placements.push_back(MakePlacement(load, layer % 2));
  const auto table = moe::MakePlacementTable(0, placements);
  const moe::HostExperts experts(kLayers, weights.experts.experts);
  comm::LocalGroup group(kRanks, {});
  exchange::LocalFabrics fabrics(kRanks, exchange::SegmentBytes(shape));
  Sample sample;
  double idle[kRanks] = {};
  const auto outcome = comm::RunRanks(group, [&](comm::Communicator& rank) {
    ThreadPool pool("rank", 1);
    exchange::Exchange exchange(shape, fabrics.rank(rank.rank()), rank, &pool);
    moe::SlotStore slots(experts, *table, {.rank = rank.rank(), .ep_rank = rank.rank()});
    moe::MoeRunner runner(weights.shape, layout,
                          {.exchange = exchange, .group = rank, .slots = slots}, table);
    RankRun run(weights, load.tokens[rank.rank()], 5 + static_cast<uint32_t>(rank.rank()));
    const auto iterate = [&](int64_t iteration) {
      const double waited = run.RunIteration(runner, exchange, pool, iteration, most_tokens);
      rank.Barrier();
      return waited;
    };
    iterate(0);
    iterate(1);
    const auto begin = Clock::now();
    for (int i = 0; i < kIterationsPerSample; ++i)
      idle[rank.rank()] += iterate(2 + i) / kIterationsPerSample;
    if (rank.rank() == 0)
      sample.seconds =
          std::chrono::duration<double>(Clock::now() - begin).count() / kIterationsPerSample;
  });
  if (!outcome.ok()) Throw(ErrorKind::kRunFailed, "{}", outcome.error);
  sample.idle_seconds = idle[0] + idle[1];
  return sample;
}

void Run(int rounds) {
  const Weights weights;
  std::printf(
      "2 ranks of a thread each, %d layers of %d ops of attention and %d experts; medians of %d "
      "interleaved rounds\n",
      kLayers, kOps, kExperts, rounds);
  for (const Case& load : kCases) {
    std::map<MoeMode, std::vector<double>> seconds;
    std::map<MoeMode, std::vector<double>> idle;
    for (int i = 0; i < rounds; ++i)
      for (const MoeMode mode : {MoeMode::kBarrier, MoeMode::kMicrobatch}) {
        const Sample sample = Measure(weights, load, mode);
        seconds[mode].push_back(sample.seconds);
        idle[mode].push_back(sample.idle_seconds);
      }
    std::vector<double> rates, idles;
    for (size_t i = 0; i < seconds[MoeMode::kBarrier].size(); ++i) {
      rates.push_back(seconds[MoeMode::kBarrier][i] / seconds[MoeMode::kMicrobatch][i]);
      idles.push_back(idle[MoeMode::kMicrobatch][i] / idle[MoeMode::kBarrier][i]);
    }
    const auto ms = [&](std::map<MoeMode, std::vector<double>>& of, MoeMode mode) {
      return bench::Median(of[mode]) * 1e3;
    };
    const double barrier = ms(seconds, MoeMode::kBarrier);
    const double microbatch = ms(seconds, MoeMode::kMicrobatch);
    std::printf(
        "%-32s iteration %.2f ms in step, %.2f ms microbatch: %.3f of its tokens/s; idle in layers "
        "%.2f ms in step, %.2f ms microbatch (%.2f)\n",
        load.name, barrier, microbatch, bench::Median(rates), ms(idle, MoeMode::kBarrier),
        ms(idle, MoeMode::kMicrobatch), bench::Median(idles));
    std::fflush(stdout);
  }
}

}  // namespace
}  // namespace wideload

int main(int argc, char** argv) {
  int rounds = 9;
  CLI::App app("what microbatch mode saves and costs");
  app.add_option("--rounds", rounds, "samples of each mode")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  wideload::Run(rounds);
  return 0;
}
