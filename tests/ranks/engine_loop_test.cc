// Requests of several threads on one engine: the same tokens at any load, cancellation, deadlines,
// stop strings, and random jobs that leave nothing behind.
#include "runtime/engine_loop.h"

#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "base/thread_pool.h"
#include "support/faulty_model.h"
#include "support/test_data.h"
#include "support/test_engine.h"

namespace wideload {
namespace {

using runtime::Delta;
using runtime::FinishReason;
using Clock = std::chrono::steady_clock;

class EngineLoopTest : public testing::Test {
 protected:
  EngineLoopTest()
      : model_(testing_support::LoadTestModel(
            testing_support::SourcePath("testdata/models/tiny-qwen3-moe"),
            compute::AutoKernelSet())),
        engine_(*model_.model, Options()),
        loop_(engine_, nullptr, [this] { return now_; }) {}

  runtime::EngineOptions Options() const {
    runtime::EngineOptions options =
        testing_support::TestOptions(model_.config, compute::AutoKernelSet());
    options.layout = parallel::DataParallel(2);
    options.max_batch_size = 4;
    return options;
  }

  static runtime::Request Prompt(int64_t length, int64_t max_tokens) {
    runtime::Request request;
    for (int64_t i = 0; i < length; ++i)
      request.prompt.push_back(static_cast<int32_t>((i * 37 + length) % 311));
    request.max_tokens = max_tokens;
    return request;
  }
  static runtime::Job MakeJob(runtime::Request request, runtime::DeltaSink sink) {
    return {.request = std::move(request), .text = {}, .deadline = {}, .sink = std::move(sink)};
  }

  testing_support::TestModel model_;
  runtime::Engine engine_;
  Clock::time_point now_;
  runtime::EngineLoop loop_;
};

TEST_F(EngineLoopTest, OtherThreadsGetTheTokensOfARequestAlone) {
  std::vector<runtime::Request> requests;
  for (int64_t i = 0; i < 24; ++i) {
    requests.push_back(Prompt(3 + i, 10 + i % 5));
    requests.back().sampling = {.temperature = i % 2 == 0 ? 0.0 : 0.9, .seed = 7};
  }
  std::vector<std::vector<int32_t>> tokens(requests.size());
  std::atomic<int> num_left{static_cast<int>(requests.size())};
  std::vector<std::jthread> threads;
  for (size_t t = 0; t < 4; ++t)
    threads.push_back(StartThread("submits", [&, t] {
      for (size_t i = t; i < requests.size(); i += 4)
        loop_.Submit(MakeJob(requests[i], [&, i](const Delta& delta) {
          if (delta.token >= 0) tokens[i].push_back(delta.token);
          if (delta.is_last()) --num_left;
        }));
    }));
  while (num_left > 0) {
    loop_.Step();
    if (loop_.idle()) loop_.Wait(std::chrono::milliseconds(10));
  }
  threads.clear();
  for (size_t i = 0; i < requests.size(); ++i)
    EXPECT_EQ(tokens[i], testing_support::RunRequests(engine_, {requests[i]})[0].tokens) << i;
}

TEST_F(EngineLoopTest, CancellationAndDeadlineEndARequestOnce) {
  std::vector<FinishReason> ends;
  const auto note = [&](const Delta& delta) {
    if (delta.is_last()) ends.push_back(delta.finish);
  };
  const runtime::JobId cancelled = loop_.Submit(MakeJob(Prompt(5, 100), note));
  runtime::Job late = MakeJob(Prompt(6, 100), note);
  late.deadline = now_ + std::chrono::seconds(3);
  loop_.Submit(std::move(late));
  loop_.Step();
  EXPECT_TRUE(ends.empty());
  loop_.Cancel(cancelled);
  loop_.Step();
  EXPECT_EQ(ends, (std::vector{FinishReason::kCancelled}));
  now_ += std::chrono::seconds(3);
  loop_.Step();
  EXPECT_EQ(ends, (std::vector{FinishReason::kCancelled, FinishReason::kDeadline}));
  loop_.Cancel(cancelled);
  loop_.Step();
  EXPECT_EQ(ends.size(), 2U);
  EXPECT_TRUE(loop_.idle());
  EXPECT_EQ(engine_.num_unfinished(), 0);
}

// The second iteration waits for what the sink gets of the first.
TEST_F(EngineLoopTest, TokensAreHandedOutWhileTheNextIterationRuns) {
  std::atomic<int> num_tokens{0};
  std::atomic<int> num_before_layers{-1};
  const auto wait_for_token = [&](const model::Batch&) {
    const auto no_later = Clock::now() + std::chrono::seconds(20);
    while (num_tokens == 0 && Clock::now() < no_later) YieldThread();
    num_before_layers = num_tokens.load();
  };
  testing_support::FaultyModel model(*model_.model, {.iteration = 1, .before = wait_for_token});
  runtime::Engine engine(model, Options());
  runtime::EngineLoop loop(engine, nullptr);
  loop.Submit(MakeJob(Prompt(5, 3), [&](const Delta& delta) { num_tokens += delta.token >= 0; }));
  loop.Step();
  EXPECT_EQ(num_tokens, 0);
  loop.Step();
  EXPECT_EQ(num_before_layers, 1);
  EXPECT_EQ(num_tokens, 1);
  loop.Step();  // none follows
  EXPECT_EQ(num_tokens, 3);
  EXPECT_TRUE(loop.idle());
}

TEST_F(EngineLoopTest, ARequestThatIsEndedFromOutsideGetsTheTokensThatThereAre) {
  for (const FinishReason reason : {FinishReason::kCancelled, FinishReason::kDeadline}) {
    std::vector<FinishReason> deltas;
    runtime::Job job =
        MakeJob(Prompt(5, 100), [&](const Delta& delta) { deltas.push_back(delta.finish); });
    if (reason == FinishReason::kDeadline) job.deadline = now_ + std::chrono::seconds(3);
    const runtime::JobId id = loop_.Submit(std::move(job));
    loop_.Step();
    EXPECT_TRUE(deltas.empty());
    now_ += std::chrono::seconds(3);
    if (reason == FinishReason::kCancelled) loop_.Cancel(id);
    loop_.Step();
    EXPECT_EQ(deltas, (std::vector{FinishReason::kNone, reason}));
    EXPECT_EQ(engine_.num_unfinished(), 0);
  }
}

TEST_F(EngineLoopTest, ASinkThatEndsARequestWhileItIsComputedLeavesTheOthersAlone) {
  std::vector<int32_t> tokens;
  int num_of_cancelled = 0;
  bool has_ended = false;
  runtime::JobId id = -1;
  loop_.Submit(MakeJob(Prompt(9, 12), [&](const Delta& delta) {
    if (delta.token >= 0) tokens.push_back(delta.token);
  }));
  id = loop_.Submit(MakeJob(Prompt(7, 50), [&](const Delta& delta) {
    EXPECT_FALSE(has_ended);
    has_ended = delta.is_last();
    num_of_cancelled += delta.token >= 0 ? 1 : 0;
    if (num_of_cancelled == 4) loop_.Cancel(id);
  }));
  while (!loop_.idle()) loop_.Step();
  EXPECT_TRUE(has_ended);
  EXPECT_EQ(num_of_cancelled, 5);  // the one that was computed meanwhile, too
  EXPECT_EQ(tokens, testing_support::RunRequests(engine_, {Prompt(9, 12)})[0].tokens);
  EXPECT_EQ(engine_.num_unfinished(), 0);
}

TEST_F(EngineLoopTest, WorkOfAnotherThreadRunsOnceBetweenIterations) {
  int num_calls = 0;
  StartThread("posts", [&] {
    loop_.Post([&](runtime::Engine* engine) { num_calls += engine == &engine_ ? 1 : 100; });
  }).join();
  EXPECT_FALSE(loop_.idle());
  loop_.Step();
  loop_.Step();
  EXPECT_EQ(num_calls, 1);
  EXPECT_TRUE(loop_.idle());
}

TEST_F(EngineLoopTest, WorkThatComesAtTheEndIsToldSo) {
  std::vector<bool> has_engine;
  const auto note = [&](runtime::Engine* engine) { has_engine.push_back(engine != nullptr); };
  loop_.Post(note);
  loop_.Step();
  loop_.Post(note);
  loop_.EndAll("over");
  loop_.Post(note);
  EXPECT_EQ(has_engine, (std::vector<bool>{true, false, false}));
  loop_.Step();
  EXPECT_EQ(has_engine.size(), 3U);
}

TEST_F(EngineLoopTest, ARequestThatCannotRunLeavesTheOthersAlone) {
  std::string error;
  int64_t num_tokens = 0;
  loop_.Submit(MakeJob(Prompt(5, 1'000'000), [&](const Delta& delta) { error = delta.error; }));
  loop_.Submit(MakeJob(Prompt(5, 7), [&](const Delta& delta) { num_tokens += delta.token >= 0; }));
  while (!loop_.idle()) loop_.Step();
  EXPECT_NE(error.find("max_tokens is 1000000"), std::string::npos) << error;
  EXPECT_EQ(num_tokens, 7);
}

TEST_F(EngineLoopTest, PromptLogprobsAreThoseOfThePromptsOwnTokens) {
  const runtime::Request request = Prompt(9, 2);
  std::vector<std::vector<runtime::TokenLogprob>> logprobs;
  runtime::Job job = MakeJob(request, [&](Delta delta) {
    if (!delta.prompt_logprobs.empty()) logprobs = std::move(delta.prompt_logprobs);
  });
  job.prompt_logprobs = 3;
  loop_.Submit(std::move(job));
  while (!loop_.idle()) loop_.Step();
  ASSERT_EQ(logprobs.size(), request.prompt.size());
  EXPECT_TRUE(logprobs[0].empty());
  for (size_t i = 1; i < logprobs.size(); ++i) {
    ASSERT_EQ(logprobs[i].size(), 4U);
    EXPECT_EQ(logprobs[i][0].id, request.prompt[i]);
    // What greedy generation would choose after the prompt so far is the most likely.
    runtime::Request part = request;
    part.prompt.resize(i);
    part.max_tokens = 1;
    EXPECT_EQ(logprobs[i][1].id, testing_support::RunRequests(engine_, {part})[0].tokens.at(0));
  }
}

// Random lengths, limits, biases, cancellations and deadlines: each job ends once, and the
// scheduler and the cache are empty afterwards.
TEST_F(EngineLoopTest, RandomJobsEndOnceAndLeaveNothing) {
  std::mt19937_64 random(20);
  const auto up_to = [&](int64_t most) {
    return static_cast<int64_t>(random() % static_cast<uint64_t>(most + 1));
  };
  constexpr int kNumJobs = 100;
  std::vector<int> num_ends(kNumJobs, 0);
  std::vector<runtime::JobId> ids;
  for (int i = 0; i < kNumJobs; ++i) {
    runtime::Request request = Prompt(up_to(80), up_to(60) - 1);
    if (up_to(9) == 0) request.prompt.push_back(static_cast<int32_t>(random()));
    request.sampling.temperature = static_cast<double>(up_to(3)) - 0.5;
    request.sampling.top_p = static_cast<double>(up_to(5)) / 4;
    request.sampling.top_k = static_cast<int32_t>(up_to(500));
    request.sampling.num_logprobs = static_cast<int32_t>(up_to(400)) - 2;
    request.min_tokens = up_to(20) - 1;
    for (int64_t b = up_to(3); b > 0; --b)
      request.logit_bias.push_back({static_cast<int32_t>(up_to(330)), 3e38F});
    request.eos_ids = {static_cast<int32_t>(random()), static_cast<int32_t>(up_to(319))};
    runtime::Job job = MakeJob(std::move(request), [&num_ends, i](const Delta& delta) {
      num_ends[static_cast<size_t>(i)] += delta.is_last() ? 1 : 0;
    });
    job.prompt_logprobs = static_cast<int32_t>(up_to(8)) - 4;
    if (up_to(4) == 0) job.deadline = now_ + std::chrono::milliseconds(up_to(20));
    ids.push_back(loop_.Submit(std::move(job)));
    if (up_to(3) == 0) loop_.Cancel(ids[static_cast<size_t>(up_to(i))]);
    for (int64_t step = up_to(3); step > 0; --step) {
      now_ += std::chrono::milliseconds(1);
      loop_.Step();
    }
  }
  while (!loop_.idle()) loop_.Step();
  loop_.Step();
  EXPECT_EQ(num_ends, std::vector<int>(kNumJobs, 1));
  EXPECT_TRUE(engine_.idle());
}

}  // namespace
}  // namespace wideload
