#include "online_run.h"

#include <algorithm>
#include <chrono>
#include <ctime>

#include "bench_timing.h"
#include "eplb/placement/even_split.h"
#include "kv/paged_cache.h"
#include "statistics/recorder.h"

namespace wideload::bench {
namespace {

runtime::EngineOptions OptionsOf(const OnlineSetup& setup, const LoadedModel& loaded,
                                 int64_t concurrency) {
  runtime::EngineOptions engine;
  engine.kernels = loaded.kernels;
  engine.layout = parallel::DataParallel(setup.num_ranks);
  engine.max_num_tokens = setup.max_num_tokens;
  engine.max_batch_size = concurrency / setup.num_ranks;
  engine.max_seq_len = loaded.config.max_position_embeddings;
  engine.num_kv_blocks = engine.max_batch_size * kv::BlocksFor(engine.max_seq_len);
  engine.num_slots = setup.num_slots;
  engine.placements = setup.placements;
  engine.split = setup.split;
  engine.rebalance = setup.online;
  engine.is_metered = true;
  engine.deadline = std::chrono::seconds(60);  // also beside other work
  return engine;
}

// Imbalance of what the ranks computed in the last iteration.
rebalance::ReplayedIteration LastBalance(const runtime::Engine& engine) {
  rebalance::ReplayedIteration out;
  const size_t num_layers = engine.ComputedRows(0).size();
  std::vector<double> rows(static_cast<size_t>(engine.options().layout.stage()));
  for (size_t layer = 0; layer < num_layers; ++layer) {
    for (size_t r = 0; r < rows.size(); ++r) {
      const int64_t computed = engine.ComputedRows(static_cast<int32_t>(r))[layer];
      rows[r] = static_cast<double>(computed);
      out.routed_tokens += computed;
    }
    out.imbalance += eplb::ImbalanceRatio(rows) / static_cast<double>(num_layers);
  }
  return out;
}

double Seconds(int64_t ns) { return static_cast<double>(ns) * 1e-9; }

// The parts of the last iteration that ranks meter.
OnlineCost LastCost(const runtime::Engine& engine) {
  OnlineCost cost{.num_iterations = 1};
  for (const runtime::GroupIteration& rank : engine.last_iteration().groups)
    cost.num_tokens += rank.num_prompt_tokens + rank.num_generated_tokens;
  const int32_t num_ranks = engine.options().num_ranks();
  std::vector<int64_t> longest(engine.Times(0).layers.size());
  for (int32_t r = 0; r < num_ranks; ++r) {
    const runtime::RankTimes times = engine.Times(r);
    cost.moving_s += Seconds(times.moving_ns);
    for (size_t layer = 0; layer < longest.size(); ++layer) {
      const moe::LayerTimes& of_layer = times.layers[layer];
      cost.counting_s += Seconds(of_layer.balancing_ns);
      cost.computing_s += Seconds(of_layer.computing_ns) / num_ranks;
      longest[layer] = std::max(longest[layer], of_layer.computing_ns);
    }
  }
  for (const int64_t ns : longest) cost.critical_s += Seconds(ns);
  return cost;
}

// What each iteration of a run was, noted one after the other.
class Notes {
 public:
  Notes(const runtime::Engine& engine, OnlineRun& run) : engine_(engine), run_(run) {
    if (engine.balancer() != nullptr) placements_ = engine.balancer()->placements();
    begin_s_ = process_.Seconds();
  }

  void Take(size_t domain) {
    const double end_s = process_.Seconds();
    run_.recording.domains.push_back(domain);
    rebalance::ReplayedIteration& balance = run_.iterations.emplace_back(LastBalance(engine_));
    OnlineCost cost = LastCost(engine_);
    cost.total_s = end_s - begin_s_;
    if (engine_.balancer() != nullptr) {
      TakeFetched(balance);
      const int64_t balancing_ns = engine_.balancing_ns();
      const int64_t planning_ns = engine_.balancer()->figures().planning_ns;
      cost.balancer_s = Seconds(balancing_ns - std::exchange(balancing_ns_, balancing_ns));
      cost.planning_s = Seconds(planning_ns - std::exchange(planning_ns_, planning_ns));
    }
    Add(CostKind::kAll, cost);
    if (cost.num_tokens >= kLargeTokens) Add(CostKind::kLarge, cost);
    if (IsDecode()) Add(CostKind::kDecode, cost);
    begin_s_ = process_.Seconds();
  }

 private:
  bool IsDecode() const {
    return std::ranges::all_of(
        engine_.last_iteration().groups,
        [](const runtime::GroupIteration& rank) { return rank.num_prompt_tokens == 0; });
  }
  void Add(CostKind kind, const OnlineCost& cost) { run_.costs[static_cast<size_t>(kind)] += cost; }
  void TakeFetched(rebalance::ReplayedIteration& balance) {
    const std::vector<eplb::Placement>& now = engine_.balancer()->placements();
    balance.layer_fetched_slots.resize(now.size());
    for (size_t layer = 0; layer < now.size(); ++layer) {
      const int32_t fetched = eplb::CountFetchedSlots(placements_[layer], now[layer]);
      balance.layer_fetched_slots[layer] = fetched;
      balance.fetched_slots += fetched;
    }
    placements_ = now;
  }

  const runtime::Engine& engine_;
  OnlineRun& run_;
  Clock process_{CLOCK_PROCESS_CPUTIME_ID};
  double begin_s_ = 0;
  int64_t balancing_ns_ = 0, planning_ns_ = 0;
  std::vector<eplb::Placement> placements_;
};

}  // namespace

OnlineCost& OnlineCost::operator+=(const OnlineCost& other) {
  num_iterations += other.num_iterations;
  num_tokens += other.num_tokens;
  total_s += other.total_s;
  counting_s += other.counting_s;
  moving_s += other.moving_s;
  balancer_s += other.balancer_s;
  planning_s += other.planning_s;
  critical_s += other.critical_s;
  computing_s += other.computing_s;
  return *this;
}

OnlineRun RunOnline(const LoadedModel& loaded, const OnlineLoad& load, const OnlineSetup& setup) {
  const moe::MoeShape& shape = loaded.model->spec().moe;
  statistics::Recorder recorder({.num_ranks = setup.num_ranks,
                                 .layers = shape.layers,
                                 .num_experts = static_cast<int32_t>(shape.num_experts),
                                 .experts_per_token = static_cast<int32_t>(shape.top_k())});
  runtime::Engine engine(*loaded.model, OptionsOf(setup, loaded, load.concurrency));
  engine.SetRecorder(&recorder);
  OnlineRun run;
  Notes notes(engine, run);
  const Clock wall;
  const double start = wall.Seconds();
  Serve(engine, load, [&](size_t domain) { notes.Take(domain); });
  run.seconds = wall.Seconds() - start;
  if (engine.balancer() != nullptr) {
    run.figures = engine.balancer()->figures();
    run.placements = engine.balancer()->placements();
  }
  const statistics::ExpertStatistics recorded = statistics::SumRanks(recorder.Statistics());
  run.recording.num_ranks = setup.num_ranks;
  run.recording.num_layers = recorded.num_layers();
  run.recording.num_experts = recorded.num_experts;
  run.recording.counts.assign(recorded.counts.begin(), recorded.counts.end());
  return run;
}

}  // namespace wideload::bench
