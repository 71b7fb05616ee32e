// An engine with its own balancer: the tokens and logits are those of one rank, whatever is moved.
#include <gtest/gtest.h>

#include "support/engine_processes.h"
#include "support/random_layout.h"
#include "support/test_data.h"
#include "support/test_engine.h"

namespace wideload {
namespace {

using rebalance::Mode;

constexpr size_t kNumRequests = 24;
constexpr uint64_t kSeed = 5;

class Online : public testing::Test {
 protected:
  runtime::EngineOptions Options(int32_t num_ranks, const rebalance::OnlineOptions& online) const {
    runtime::EngineOptions options = testing_support::TestOptions(model_.config, kernels_);
    options.num_ranks = num_ranks;
    options.num_slots = static_cast<int32_t>(model_.config.num_experts) + 2 * num_ranks;
    options.num_slots -= options.num_slots % num_ranks;
    options.rebalance = online;
    return options;
  }

  void ExpectSameBits(runtime::Engine& engine) const {
    const auto outcomes = testing_support::RunRequests(engine, requests_);
    for (size_t i = 0; i < outcomes.size(); ++i) EXPECT_TRUE(outcomes[i] == expected_[i]) << i;
  }

  const compute::KernelSet kernels_ = compute::AutoKernelSet();
  testing_support::TestModel model_ = testing_support::LoadTestModel(
      testing_support::SourcePath("testdata/models/tiny-qwen3-moe"), kernels_);
  std::vector<runtime::Request> requests_ =
      testing_support::DrawRequests(model_, kNumRequests, kSeed);
  std::vector<testing_support::Outcome> expected_ = testing_support::RunRequests(
      *model_.model, testing_support::TestOptions(model_.config, kernels_), requests_);
};

TEST_F(Online, EveryModeChangesPlacementsAndNoBit) {
  for (const Mode mode : {Mode::kRepair, Mode::kTensorRtLlm, Mode::kRandom})
    for (const bool is_waiting : {true, false}) {
      SCOPED_TRACE(testing::Message() << static_cast<int>(mode) << is_waiting);
      runtime::Engine engine(*model_.model, Options(8, {.mode = mode, .is_waiting = is_waiting}));
      ExpectSameBits(engine);
      const rebalance::BalancerFigures figures = engine.balancer()->figures();
      EXPECT_TRUE(figures.fetched_slots > 0 || !is_waiting);
      EXPECT_TRUE(figures.num_late == 0 || !is_waiting);
      EXPECT_GT(engine.balancing_ns(), 0);
    }
}

TEST_F(Online, WarmupIsNotPlannedFor) {
  runtime::Engine engine(*model_.model, Options(8, {.mode = Mode::kRepair}));
  engine.SetWarmup(true);
  ExpectSameBits(engine);
  EXPECT_EQ(engine.balancer()->figures().num_changes, 0);
  engine.SetWarmup(false);
  ExpectSameBits(engine);
  EXPECT_GT(engine.balancer()->figures().num_changes, 0);
}

TEST_F(Online, OneRankAndModeOffHaveNoBalancer) {
  EXPECT_EQ(runtime::Engine(*model_.model, Options(1, {.mode = Mode::kRepair})).balancer(),
            nullptr);
  EXPECT_EQ(runtime::Engine(*model_.model, Options(8, {})).balancer(), nullptr);
}

TEST_F(Online, ProcessesTellRankZeroWhatTheyRouted) {
  const runtime::EngineOptions options = Options(4, {.mode = Mode::kRepair});
  const ProcessOutcome outcome = RunEngineProcesses(
      {.options = options,
       .model_of = [&](int) -> const model::Model& { return *model_.model; },
       .lead =
           [&](runtime::Engine& engine) {
             runtime::Engine threads(*model_.model, options);
             ExpectSameBits(threads);
             ExpectSameBits(engine);
             EXPECT_GT(engine.balancer()->figures().fetched_slots, 0);
             EXPECT_EQ(engine.balancer()->placements(), threads.balancer()->placements());
           }});
  EXPECT_EQ(outcome.ranks.error, "");
  EXPECT_TRUE(outcome.killed_ranks.empty());
}

}  // namespace
}  // namespace wideload
