// The engine over several ranks: events, cancellation, preemption, faults, and a steady state that
// allocates nothing.
#include "runtime/engine.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <numeric>

#include "support/allocations.h"
#include "support/test_data.h"
#include "support/test_engine.h"

namespace wideload {
namespace {

using compute::KernelSet;
using runtime::Event;
using runtime::FinishReason;
using testing_support::Outcome;
using testing_support::TestModel;

class EngineTest : public testing::Test {
 protected:
  EngineTest()
      : kernels_(compute::AutoKernelSet()),
        model_(testing_support::LoadTestModel(
            testing_support::SourcePath("testdata/models/tiny-qwen3-moe"), kernels_)) {}

  runtime::EngineOptions Options(int32_t ranks) const {
    runtime::EngineOptions options = testing_support::TestOptions(model_.config, kernels_);
    options.layout = parallel::DataParallel(ranks);
    options.deadline = std::chrono::seconds(5);
    return options;
  }
  static runtime::Request Prompt(int64_t length, int64_t max_tokens) {
    runtime::Request request;
    for (int64_t i = 0; i < length; ++i)
      request.prompt.push_back(static_cast<int32_t>((i * 37) % 311));
    request.max_tokens = max_tokens;
    return request;
  }

  KernelSet kernels_;
  TestModel model_;
};

TEST_F(EngineTest, AllocatesNothingInSteadyState) {
  for (const int32_t ranks : {1, 4}) {
    runtime::Engine engine(*model_.model, Options(ranks));
    for (int i = 0; i < 6; ++i) engine.Submit(Prompt(20 + i, 100));
    for (int i = 0; i < 20; ++i) engine.Step();  // prompts, and every buffer at its size
    const int64_t before = testing_support::NumAllocations();
    for (int i = 0; i < 10; ++i) engine.Step();
    EXPECT_EQ(testing_support::NumAllocations() - before, 0) << ranks << " ranks";
  }
}

TEST_F(EngineTest, CancelsWaitingAndRunningRequests) {
  runtime::EngineOptions options = Options(2);
  options.max_batch_size = 1;
  runtime::Engine engine(*model_.model, options);
  std::vector<runtime::RequestId> ids;
  for (int i = 0; i < 4; ++i) ids.push_back(engine.Submit(Prompt(10, 50)));
  engine.Step();
  engine.Cancel(ids[0]);
  engine.Cancel(ids[3]);
  engine.Cancel(ids[3]);
  int cancelled = 0, finished = 0;
  while (!engine.idle()) {
    for (const Event& event : engine.Step()) {
      cancelled += event.finish == FinishReason::kCancelled;
      finished += event.finish == FinishReason::kLength;
    }
  }
  EXPECT_EQ(cancelled, 2);
  EXPECT_EQ(finished, 2);
}

TEST_F(EngineTest, RefusesBadRequestsWithoutHurtingOthers) {
  runtime::Engine engine(*model_.model, Options(1));
  runtime::Request bad_id = Prompt(3, 2);
  bad_id.prompt[1] = 320;
  runtime::Request bad_sampling = Prompt(3, 2);
  bad_sampling.sampling.top_p = 2;
  const std::vector<Outcome> outcomes = testing_support::RunRequests(
      engine, {bad_id, Prompt(3, 2), bad_sampling, Prompt(600, 2), Prompt(0, 1)});
  EXPECT_NE(outcomes[0].error.find("id 320 at position 1"), std::string::npos) << outcomes[0].error;
  EXPECT_EQ(outcomes[1].tokens.size(), 2u);
  EXPECT_NE(outcomes[2].error.find("top_p is 2"), std::string::npos) << outcomes[2].error;
  EXPECT_NE(outcomes[3].error.find("max_seq_len"), std::string::npos) << outcomes[3].error;
  EXPECT_NE(outcomes[4].error.find("empty"), std::string::npos) << outcomes[4].error;
}

TEST_F(EngineTest, PreemptsAndStillFinishesWithTheSameTokens) {
  std::vector<runtime::Request> requests;
  for (int i = 0; i < 8; ++i) requests.push_back(Prompt(20 + i, 60));
  const std::vector<Outcome> expected =
      testing_support::RunRequests(*model_.model, Options(1), requests);
  runtime::EngineOptions options = Options(1);
  options.num_kv_blocks = 6;
  runtime::Engine engine(*model_.model, options);
  EXPECT_EQ(testing_support::RunRequests(engine, requests), expected);
  EXPECT_GT(engine.scheduler().num_preemptions(), 0);
}

TEST_F(EngineTest, RecordsOnAfterTheRecorderWasSwitchedOff) {
  runtime::Engine engine(*model_.model, Options(2));
  statistics::Recorder recorder(
      {.num_ranks = 2, .layers = {0, 1, 2, 3}, .num_experts = 16, .experts_per_token = 4});
  for (statistics::Recorder* to :
       {&recorder, static_cast<statistics::Recorder*>(nullptr), &recorder}) {
    engine.SetRecorder(to);
    testing_support::RunRequests(engine, {Prompt(30, 5)});
  }
  const statistics::ExpertStatistics recorded = recorder.Statistics();
  EXPECT_EQ(recorded.num_iterations, engine.last_iteration().iteration + 1);
  const std::vector<int64_t> loads = statistics::LayerLoads(recorded, 0);
  EXPECT_EQ(std::accumulate(loads.begin(), loads.end(), int64_t{0}), 2 * 4 * (30 + 4));
}

TEST_F(EngineTest, RecordsWhatItRouted) {
  runtime::Engine engine(*model_.model, Options(2));
  statistics::Recorder recorder(
      {.num_ranks = 2, .layers = {0, 1, 2, 3}, .num_experts = 16, .experts_per_token = 4});
  engine.SetRecorder(&recorder);
  testing_support::RunRequests(engine, {Prompt(30, 5), Prompt(17, 5)});
  const statistics::ExpertStatistics recorded = recorder.Statistics();
  EXPECT_EQ(recorded.num_iterations, engine.last_iteration().iteration + 1);
  for (size_t layer = 0; layer < 4;
       ++layer) {  // top-4; the last generated token of each is never computed
    const std::vector<int64_t> loads = statistics::LayerLoads(recorded, layer);
    EXPECT_EQ(std::accumulate(loads.begin(), loads.end(), int64_t{0}), 4 * (30 + 4 + 17 + 4));
  }
}

}  // namespace
}  // namespace wideload
