// Same bits from ranks that are stages of a pipeline, with as many micro-batches in flight, and
// whatever else an engine does: prefixes, preemption, cancelling, experts that move, statistics.
#include <gtest/gtest.h>

#include <numeric>

#include "model/sharded_model.h"
#include "model/transformer.h"
#include "runtime/engine_monitor.h"
#include "statistics/statistics_folder.h"
#include "support/allocations.h"
#include "support/engine_processes.h"
#include "support/layout_cases.h"
#include "support/random_layout.h"
#include "support/random_moves.h"
#include "support/test_data.h"
#include "support/test_engine.h"

namespace wideload {
namespace {

using runtime::Event;
using runtime::FinishReason;
using testing_support::LayoutCase;
using testing_support::Outcome;
using testing_support::SourcePath;

// Experts in place lie in equal stages, those that move in unequal ones.
constexpr LayoutCase kCases[] = {
    {.layout = {.pp = 2}},
    {.layout = {.pp = 2}, .are_experts_moving = true},
    {.layout = {.dp = 2, .pp = 2, .moe_ep = 2}, .are_experts_moving = true},
    {.layout = {.tp = 2, .pp = 2, .moe_tp = 2}},
    {.layout = {.pp = 4}},
    {.layout = {.tp = 2, .pp = 4, .moe_ep = 2}, .are_experts_moving = true},
    {.layout = {.pp = 2}, .are_processes = true},
    {.layout = {.dp = 2, .pp = 2, .moe_ep = 2}, .are_experts_moving = true, .are_processes = true},
};

class Stages : public testing::TestWithParam<size_t> {};

TEST_P(Stages, ChangeNoBit) {
  const std::string folder = testing_support::LayoutModels()[GetParam()];
  testing_support::LayoutRunner runner(folder);
  for (const LayoutCase& layout : kCases) {
    if (layout.layout.pp > runner.num_layers()) continue;
    EXPECT_EQ(runner.Run(layout), "0") << folder << ": " << layout.Describe();
  }
}

INSTANTIATE_TEST_SUITE_P(Models, Stages, testing::Range(size_t{0}, size_t{3}));

constexpr uint64_t kSeed = 16;
constexpr size_t kNumRequests = 10;

class Pipeline : public testing::Test {
 protected:
  explicit Pipeline(const std::string& name = "tiny-qwen3-moe")
      : folder_(SourcePath("testdata/models/" + name)),
        model_(testing_support::LoadTestModel(folder_, kernels_)),
        requests_(testing_support::DrawRequests(model_, kNumRequests, kSeed)),
        expected_(testing_support::RunRequests(
            *model_.model, testing_support::TestOptions(model_.config, kernels_), requests_)) {}

  runtime::EngineOptions Options(int32_t pp, int32_t ranks_of_stage = 1) const {
    runtime::EngineOptions options = testing_support::TestOptions(model_.config, kernels_);
    options.layout = parallel::DataParallel(ranks_of_stage);
    options.layout.pp = pp;
    options.num_micro_batches = pp;
    options.deadline = std::chrono::seconds(60);
    return options;
  }
  // With replicas and a few tokens to a chunk.
  runtime::EngineOptions ReplicaOptions() const {
    runtime::EngineOptions options = Options(2, 2);
    options.num_slots = static_cast<int32_t>(model_.config.num_experts) + 4;
    options.moe_max_num_tokens = 24;
    return options;
  }
  void ExpectSameBits(runtime::Engine& engine) const {
    const auto outcomes = testing_support::RunRequests(engine, requests_);
    for (size_t i = 0; i < outcomes.size(); ++i) EXPECT_TRUE(outcomes[i] == expected_[i]) << i;
    EXPECT_EQ(engine.scheduler().kv_usage(), 0);
  }

  const compute::KernelSet kernels_ = compute::AutoKernelSet();
  std::string folder_;
  testing_support::TestModel model_;
  std::vector<runtime::Request> requests_;
  std::vector<Outcome> expected_;
};

class PipelineOfTiedEmbeddings : public Pipeline {
 protected:
  PipelineOfTiedEmbeddings() : Pipeline("tiny-qwen3-dense") {}
};

// Each process has a model of its own with the layers of its stage alone.
void ExpectSameFromPartialModels(const runtime::EngineOptions& options, const std::string& folder,
                                 const model::Model& whole,
                                 const std::function<void(runtime::Engine&)>& expect) {
  std::vector<std::unique_ptr<model::Model>> models;
  int64_t bytes = 0;
  for (int32_t stage = 0; stage < options.layout.pp; ++stage) {
    ThreadPool pool("load", 1);
    checkpoint::Checkpoint weights(folder);
    const model::LoadOptions load{.kernels = options.kernels,
                                  .pool = &pool,
                                  .layers = options.LayersOf(stage, whole.spec().num_layers())};
    models.push_back(model::LoadForThreads(whole.spec(), weights, load, 1));
    EXPECT_LT(models.back()->weight_bytes(), whole.weight_bytes() * 2 / 3);
    bytes += models.back()->weight_bytes();
  }
  EXPECT_EQ(bytes, whole.weight_bytes());
  const ProcessOutcome outcome =
      RunEngineProcesses({.options = options,
                          .model_of = [&](int rank) -> const model::Model& {
                            return *models[static_cast<size_t>(rank / options.layout.stage())];
                          },
                          .lead = expect});
  EXPECT_EQ(outcome.ranks.error, "");
  EXPECT_TRUE(outcome.killed_ranks.empty());
}

TEST_F(Pipeline, TakesTheWeightsOfItsOwnLayersAlone) {
  ExpectSameFromPartialModels(Options(2), folder_, *model_.model,
                              [&](runtime::Engine& engine) { ExpectSameBits(engine); });
}

TEST_F(PipelineOfTiedEmbeddings, TakesTheEmbeddingInTheFirstStageAndTheHeadInTheLast) {
  ExpectSameFromPartialModels(Options(2), folder_, *model_.model,
                              [&](runtime::Engine& engine) { ExpectSameBits(engine); });
}

TEST_F(Pipeline, HoldsCopiesOfItsOwnLayersExpertsWhichMove) {
  runtime::EngineOptions options = ReplicaOptions();
  options.slot_storage = moe::SlotStorage::kCopy;
  options.verify_slots = true;
  runtime::Engine engine(*model_.model, options);
  engine.SetPlacementSource(testing_support::RandomMoves(model_.model->spec().moe, options, kSeed));
  ExpectSameBits(engine);
}

TEST_F(Pipeline, RunsItsExpertsInMicrobatchMode) {
  runtime::EngineOptions options = ReplicaOptions();
  options.moe_mode = moe::MoeMode::kMicrobatch;
  runtime::Engine engine(*model_.model, options);
  ExpectSameBits(engine);
}

TEST_F(Pipeline, TakesPlacementsAndBalancesThemFromTheLoadOfAllItsStages) {
  for (const rebalance::Mode mode : {rebalance::Mode::kRepair, rebalance::Mode::kTensorRtLlm}) {
    runtime::EngineOptions options = ReplicaOptions();
    for (uint64_t layer = 0; layer < model_.model->spec().moe.layers.size(); ++layer)
      options.placements.push_back(
          eplb::RandomPlacement(static_cast<int32_t>(model_.config.num_experts), options.num_slots,
                                options.layout.moe_ep, kSeed + layer));
    options.rebalance = {.mode = mode, .is_waiting = true};
    runtime::Engine engine(*model_.model, options);
    ExpectSameBits(engine);
    const rebalance::BalancerFigures figures = engine.balancer()->figures();
    EXPECT_GT(figures.fetched_slots, 0);
    EXPECT_EQ(figures.num_late, 0);
  }
}

TEST_F(Pipeline, FindsPrefixesInTheMicroBatchThatComputedThem) {
  runtime::Request first = requests_[0];
  first.prompt.assign(2 * kv::kBlockTokens, 7);
  first.prompt_logits = false;
  first.max_tokens = 1;
  runtime::Request second = first;
  second.prompt.resize(second.prompt.size() + 5, 9);
  second.max_tokens = 4;
  second.sampling.num_logprobs = 3;
  const auto run = [&](const runtime::EngineOptions& options) {
    runtime::Engine engine(*model_.model, options);
    testing_support::RunRequests(engine, {first});
    std::vector<Event> events;
    engine.Submit(second);
    while (!engine.idle())
      for (const Event& event : engine.Step()) events.push_back(event);
    return events;
  };
  runtime::EngineOptions cached = Options(2);
  cached.prefix_cache = true;
  const std::vector<Event> found = run(cached);
  const std::vector<Event> expected = run(testing_support::TestOptions(model_.config, kernels_));
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(found[i].token, expected[i].token);
    ASSERT_EQ(found[i].logprobs.size(), expected[i].logprobs.size());
    EXPECT_GE(found[i].logprobs.size(), 3u);
    for (size_t k = 0; k < found[i].logprobs.size(); ++k)
      EXPECT_EQ(found[i].logprobs[k].logprob, expected[i].logprobs[k].logprob);
  }
  EXPECT_EQ(found.back().num_cached_tokens, 2 * kv::kBlockTokens);
}

TEST_F(Pipeline, PreemptsAndStillGivesTheSameBits) {
  runtime::EngineOptions options = Options(2);
  options.num_kv_blocks = 3;
  std::vector<runtime::Request> requests(6);
  for (runtime::Request& request : requests) {
    request.prompt.assign(kv::kBlockTokens - 3, static_cast<int32_t>(&request - requests.data()));
    request.max_tokens = 8;
  }
  const auto expected = testing_support::RunRequests(
      *model_.model, testing_support::TestOptions(model_.config, kernels_), requests);
  runtime::Engine engine(*model_.model, options);
  EXPECT_EQ(testing_support::RunRequests(engine, requests), expected);
  EXPECT_GT(engine.scheduler().num_preemptions(), 0);
}

// After so many steps they wait, are in the first stage or the second, or have generated.
TEST_F(Pipeline, CancelsRequestsOnTheirWayAndKeepsTheOthers) {
  for (const int num_steps : {0, 1, 2, 5}) {
    runtime::Engine engine(*model_.model, Options(2));
    std::vector<runtime::RequestId> ids;
    for (size_t i = 0; i < 4; ++i) ids.push_back(engine.Submit(requests_[i]));
    std::vector<Outcome> outcomes(ids.size());
    const auto step = [&] {
      for (const Event& event : engine.Step()) {
        Outcome& outcome = outcomes[static_cast<size_t>(event.id - ids.front())];
        EXPECT_EQ(outcome.finish, FinishReason::kNone);
        if (event.token >= 0) outcome.tokens.push_back(event.token);
        outcome.finish = event.finish;
      }
    };
    for (int i = 0; i < num_steps; ++i) step();
    for (size_t i = 0; i < ids.size(); i += 2) engine.Cancel(ids[i]);
    while (!engine.idle()) step();
    for (size_t i = 1; i < ids.size(); i += 2) EXPECT_EQ(outcomes[i].tokens, expected_[i].tokens);
    if (num_steps < 2) {
      EXPECT_EQ(outcomes[0].finish, FinishReason::kCancelled);
    }
    EXPECT_EQ(engine.scheduler().kv_usage(), 0);
  }
}

TEST_F(Pipeline, RecordsTheSameStatisticsAsOneStageAndCountsTheSameRows) {
  const moe::MoeShape& moe = model_.model->spec().moe;
  std::vector<std::vector<int64_t>> loads;
  for (const int32_t pp : {1, 2}) {
    runtime::Engine engine(*model_.model, Options(pp, 2));
    runtime::EngineMonitor monitor(engine);
    std::unique_ptr<statistics::Recorder> recorder;
    for (const runtime::Request& request : requests_) engine.Submit(request);
    // From an iteration on that is planned while others are on their way.
    for (int i = 0; !engine.idle(); ++i) {
      if (i == 0 || (pp > 1 && i == 2)) {
        recorder = std::make_unique<statistics::Recorder>(
            statistics::RecorderOptions{.num_ranks = engine.options().num_ranks(),
                                        .num_stages = pp,
                                        .layers = moe.layers,
                                        .num_experts = static_cast<int32_t>(moe.num_experts),
                                        .experts_per_token = static_cast<int32_t>(moe.top_k()),
                                        .range = {.start = engine.next_iteration()}});
        engine.SetRecorder(recorder.get());
      }
      engine.Step();
      monitor.Note(0);
    }
    const statistics::ExpertStatistics written = recorder->Statistics();
    EXPECT_EQ(written.num_ranks, 2);
    EXPECT_EQ(written.iter_start + written.num_iterations, engine.next_iteration());
    const std::vector<int64_t> first = statistics::LayerLoads(written, 0);
    const int64_t tokens = std::accumulate(first.begin(), first.end(), int64_t{0});
    for (size_t layer = 1; layer < moe.layers.size(); ++layer) {
      const std::vector<int64_t> load = statistics::LayerLoads(written, layer);
      EXPECT_EQ(std::accumulate(load.begin(), load.end(), int64_t{0}), tokens) << layer;
    }
    const runtime::EngineCourse course = monitor.course();
    EXPECT_EQ(course.num_ranks, 2);
    EXPECT_EQ(course.total.num_iterations, engine.next_iteration());
    EXPECT_EQ(std::accumulate(course.computed_rows.begin(), course.computed_rows.end(), int64_t{0}),
              course.exchange.num_returns);
    loads.push_back(monitor.experts().routed);
  }
  EXPECT_EQ(loads[1], loads[0]);
}

TEST_F(Pipeline, AllocatesNothingInSteadyState) {
  runtime::Engine engine(*model_.model, Options(4));
  for (int32_t i = 0; i < 8; ++i) {
    runtime::Request request;
    request.prompt.assign(20, i);
    request.max_tokens = 60;
    engine.Submit(request);
  }
  for (int i = 0; i < 40; ++i) engine.Step();
  const int64_t before = testing_support::NumAllocations();
  for (int i = 0; i < 12; ++i) {
    const std::span<const Event> events = engine.Step();
    EXPECT_EQ(events.size(), 2u);  // no stage is without work
  }
  EXPECT_EQ(testing_support::NumAllocations() - before, 0);
}

}  // namespace
}  // namespace wideload
