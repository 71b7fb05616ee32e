// Several engines that generate, for which others compute prompts: the bits of one engine, what one
// that fails costs, and how requests and their ends find the engine.
#include "runtime/generation_engines.h"

#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <set>
#include <thread>

#include "request_answers.h"
#include "runtime/context_engines.h"
#include "support/faulty_model.h"
#include "support/test_data.h"

namespace wideload {
namespace {

using namespace testing_support;  // NOLINT(google-build-using-namespace): all of this is with them
using runtime::EngineOptions;
using Clock = std::chrono::steady_clock;

// Engines that compute prompts and engines that generate, all on threads of their own.
class Grid {
 public:
  struct More {
    runtime::ServerRouting routing = runtime::ServerRouting::kRoundRobin;
    std::optional<int64_t> max_own_prefill = std::nullopt;
    int32_t max_retries = 0;
  };
  Grid(const model::Model& context_model, const EngineOptions& context_options, size_t num_contexts,
       const std::vector<const model::Model*>& generation_models,
       const EngineOptions& generation_options)
      : Grid(context_model, context_options, num_contexts, generation_models, generation_options,
             More{}) {}
  Grid(const model::Model& context_model, const EngineOptions& context_options, size_t num_contexts,
       const std::vector<const model::Model*>& generation_models,
       const EngineOptions& generation_options, const More& more) {
    std::vector<runtime::Engine*> engines;
    for (size_t i = 0; i < num_contexts; ++i) {
      context_engines_.push_back(std::make_unique<runtime::Engine>(context_model, context_options));
      engines.push_back(context_engines_.back().get());
    }
    contexts = std::make_unique<runtime::ContextEngines>(engines, more.routing);
    engines.clear();
    for (const model::Model* const model : generation_models) {
      generation_engines_.push_back(std::make_unique<runtime::Engine>(*model, generation_options));
      engines.push_back(generation_engines_.back().get());
    }
    servers = std::make_unique<runtime::GenerationEngines>(
        engines, runtime::GenerationEngines::Common{.tokenizer = nullptr,
                                                    .contexts = contexts.get(),
                                                    .transfer_timeout = kLongTimeout,
                                                    .routing = more.routing,
                                                    .max_own_prefill = more.max_own_prefill,
                                                    .max_retries = more.max_retries});
  }
  ~Grid() { Stop(); }

  std::vector<runtime::JobId> Submit(Answers& answers,
                                     const std::vector<runtime::Request>& requests) {
    num_left_ = std::ssize(requests);
    std::vector<runtime::JobId> ids;
    for (size_t i = 0; i < requests.size(); ++i) {
      runtime::Job job = answers.JobOf(requests[i], i, i % 3 == 2 ? 2 : -1);
      job.sink = [this, sink = std::move(job.sink)](const Delta& delta) {
        sink(delta);
        ++num_deltas_;
        if (delta.is_last()) --num_left_;
      };
      ids.push_back(servers->Submit(std::move(job)));
    }
    return ids;
  }
  void SubmitWithPromptLogprobs(Answers& answers, const runtime::Request& request) {
    num_left_ = 1;
    runtime::Job job = answers.JobOf(request, 0, 2);
    job.sink = [this, sink = std::move(job.sink)](const Delta& delta) {
      sink(delta);
      if (delta.is_last()) --num_left_;
    };
    servers->Submit(std::move(job));
  }
  void RunToEnd() {
    while (num_left_ > 0) Step();
  }
  void Step() {
    servers->Step();
    if (servers->idle()) servers->Wait(std::chrono::milliseconds(1));
  }
  Answers Run(const std::vector<runtime::Request>& requests) {
    Answers answers(requests.size());
    Submit(answers, requests);
    RunToEnd();
    return answers;
  }
  // Of a request at a time: on which engine its prompt was taken over.
  size_t ServerOf(const runtime::Request& request) {
    const int64_t before = NumPromptsOf(0);
    Run({request});
    const auto no_later = Clock::now() + std::chrono::seconds(20);
    while (servers->AllFigures().hand_over.num_prompts == num_seen_ && Clock::now() < no_later)
      std::this_thread::yield();
    num_seen_ = servers->AllFigures().hand_over.num_prompts;
    return NumPromptsOf(0) > before ? 0 : 1;
  }
  int64_t NumPromptsOf(size_t i) const { return servers->figures(i).hand_over.num_prompts; }
  int64_t num_deltas() const { return num_deltas_; }
  void Stop() {
    servers->Stop();
    contexts->Stop();
  }
  // After all requests have ended: the threads have let go of all blocks.
  void ExpectNothingLeft() {
    const auto no_later = Clock::now() + std::chrono::seconds(20);
    for (size_t i = 0; i < context_engines_.size(); ++i)
      while (contexts->loop(i).figures().kv_usage > 0 && Clock::now() < no_later)
        std::this_thread::yield();
    Stop();
    for (const auto& engine : context_engines_) {
      EXPECT_EQ(engine->scheduler().num_held(), 0);
      EXPECT_EQ(engine->scheduler().kv_usage(), 0);
    }
  }
  const runtime::Engine& generation(size_t i) const { return *generation_engines_[i]; }

 private:
  std::vector<std::unique_ptr<runtime::Engine>> context_engines_;
  std::vector<std::unique_ptr<runtime::Engine>> generation_engines_;
  std::atomic<int64_t> num_left_{0};
  std::atomic<int64_t> num_deltas_{0};
  int64_t num_seen_ = 0;

 public:
  std::unique_ptr<runtime::ContextEngines> contexts;
  std::unique_ptr<runtime::GenerationEngines> servers;
};

// Two servers for prompts, two and three that generate.
TEST(GenerationEngines, GiveTheBitsOfOneEngine) {
  const Sides all_sides[] = {{{1, 1}, {1, 2}}, {{2, 1}, {1, 1}}, {{1, 2}, {2, 1}}};
  size_t i = 0;
  for (const std::string name : {"qwen3-moe", "deepseek-v3", "gpt-oss"}) {
    const std::string folder = SourcePath("testdata/models/tiny-" + name);
    const TestModel one = LoadTestModel(folder, compute::AutoKernelSet());
    const std::vector<runtime::Request> requests = Requests(one, 10, i);
    runtime::Engine engine(*one.model, OptionsOf(one, 1));
    runtime::EngineLoop alone(engine, nullptr);
    const Answers expected = RunAll(alone, requests);
    const Sides& sides = all_sides[i];
    const TestModel context = LoadTestModel(folder, compute::AutoKernelSet(), sides.context.tp);
    const TestModel generation =
        LoadTestModel(folder, compute::AutoKernelSet(), sides.generation.tp);
    const size_t num_servers = i == 0 ? 3 : 2;
    Grid grid(*context.model, OptionsOf(context, sides.context), 2,
              std::vector<const model::Model*>(num_servers, generation.model.get()),
              OptionsOf(generation, sides.generation));
    const Answers answers = grid.Run(requests);
    for (size_t r = 0; r < requests.size(); ++r)
      EXPECT_EQ(answers[r], expected[r]) << folder << ", request " << r;
    grid.ExpectNothingLeft();
    for (size_t s = 0; s < num_servers; ++s)
      EXPECT_GT(grid.generation(s).hand_over_figures().num_prompts, 0) << "server " << s;
    ++i;
  }
}

class TinyGrid : public testing::Test {
 protected:
  TinyGrid()
      : model_(
            LoadTestModel(SourcePath("testdata/models/tiny-qwen3-moe"), compute::AutoKernelSet())),
        options_(OptionsOf(model_, 1)) {}

  TestModel model_;
  EngineOptions options_;
};

TEST_F(TinyGrid, AFailedGenerationCostsItsRequestsAndNoOthers) {
  FaultyModel faulty(*model_.model, {.iteration = 3, .before = [](const model::Batch&) {
                                       throw std::runtime_error("broken");
                                     }});
  const std::vector<runtime::Request> requests(6, PromptOf(30, 50));
  runtime::Engine engine(*model_.model, options_);
  runtime::EngineLoop alone(engine, nullptr);
  const Answers expected = RunAll(alone, requests);
  Grid grid(*model_.model, options_, 2, {&faulty, model_.model.get()}, options_);
  const Answers answers = grid.Run(requests);
  for (size_t i = 0; i < requests.size(); ++i) {
    if (i % 2 == 0)
      EXPECT_EQ(answers[i].error, "the engine has stopped");
    else
      EXPECT_EQ(answers[i], expected[i]);
  }
  EXPECT_FALSE(grid.servers->is_running(0));
  EXPECT_FALSE(grid.servers->has_ended());
  const Answers after = grid.Run(requests);
  EXPECT_EQ(after.all(), expected.all());
  grid.ExpectNothingLeft();
  EXPECT_NE(grid.servers->failure(0), nullptr);
  EXPECT_EQ(grid.servers->failure(1), nullptr);
}

// While its requests have had some of their tokens.
TEST_F(TinyGrid, WhatAFailedGenerationHadIsBegunAnewAndNothingToldTwice) {
  FaultyModel faulty(*model_.model, {.iteration = 9, .before = [](const model::Batch&) {
                                       throw std::runtime_error("broken");
                                     }});
  std::vector<runtime::Request> requests(6, PromptOf(30, 50));
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].sampling = {.temperature = 0.9, .seed = i, .num_logprobs = 1};
    requests[i].index = i;
  }
  runtime::Engine engine(*model_.model, options_);
  runtime::EngineLoop alone(engine, nullptr);
  const Answers expected = RunAll(alone, requests);
  Grid grid(*model_.model, options_, 2, {&faulty, model_.model.get()}, options_,
            {.max_retries = 1});
  EXPECT_EQ(grid.Run(requests).all(), expected.all());
  EXPECT_EQ(grid.servers->num_retries(), 3);
  EXPECT_FALSE(grid.servers->is_running(0));
  grid.ExpectNothingLeft();
}

TEST_F(TinyGrid, PromptsOfAFailedContextAreComputedByAnother) {
  std::atomic<bool> has_failed{false};  // the first one of them that computes
  FaultyModel faulty(*model_.model, {.iteration = 0, .before = [&](const model::Batch&) {
                                       if (!has_failed.exchange(true))
                                         throw std::runtime_error("broken");
                                     }});
  const std::vector<runtime::Request> requests(4, PromptOf(30, 5));
  runtime::Engine engine(*model_.model, options_);
  runtime::EngineLoop alone(engine, nullptr);
  const Answers expected = RunAll(alone, requests);
  Grid grid(faulty, options_, 2, {model_.model.get()}, options_, {.max_retries = 1});
  EXPECT_EQ(grid.Run(requests).all(), expected.all());
  EXPECT_GT(grid.servers->num_retries(), 0);
  EXPECT_TRUE(grid.contexts->is_any_running());
}

TEST_F(TinyGrid, WithoutAGenerationLeftTheCauseIsTold) {
  const auto broken = [](const model::Batch&) { throw std::runtime_error("broken"); };
  FaultyModel first(*model_.model, {.iteration = 1, .before = broken});
  FaultyModel second(*model_.model, {.iteration = 4, .before = broken});
  Grid grid(*model_.model, options_, 1, {&first, &second}, options_);
  Answers answers(4);
  grid.Submit(answers, std::vector(4, PromptOf(30, 50)));
  try {
    while (true) grid.Step();
  } catch (const std::exception& failure) {
    EXPECT_NE(std::string(failure.what()).find("broken"), std::string::npos) << failure.what();
  }
  EXPECT_TRUE(grid.servers->has_ended());
  Answers late(1);
  grid.Submit(late, {PromptOf(5, 5)});
  grid.servers->EndAll("over");
  grid.Stop();
  for (const Answer& answer : answers.all()) EXPECT_EQ(answer.error, "the engine has stopped");
  EXPECT_EQ(late[0].finish, FinishReason::kError);
}

// Holds what comes to an iteration until it is opened.
struct Gate {
  FaultyModel::Fault At(int64_t iteration) {
    return {.iteration = iteration, .before = [this](const model::Batch&) { is_open.wait(false); }};
  }
  void Open() {
    is_open = true;
    is_open.notify_all();
  }
  std::atomic<bool> is_open{false};
};

TEST_F(TinyGrid, CancellationsFindTheEngineOfTheirRequest) {
  Gate gate;
  FaultyModel held(*model_.model, gate.At(4));
  Grid grid(*model_.model, options_, 1, {&held, &held}, options_);
  Answers answers(5);
  const auto ids = grid.Submit(answers, std::vector(5, PromptOf(30, 400)));
  EXPECT_EQ(std::set<runtime::JobId>(ids.begin(), ids.end()).size(), 5U);
  while (grid.num_deltas() < 2) grid.Step();
  for (const size_t i : {0U, 3U}) grid.servers->Cancel(ids[i]);
  grid.servers->Cancel(-1);
  grid.servers->Cancel(1'000'001);
  gate.Open();
  grid.RunToEnd();
  for (size_t i = 0; i < 5; ++i)
    EXPECT_EQ(answers[i].finish, i % 3 == 0 ? FinishReason::kCancelled : FinishReason::kLength);
  grid.ExpectNothingLeft();
}

// While their prompts are computed, so that none has ended before.
TEST_F(TinyGrid, TheEndReachesTheRequestsOfAllEngines) {
  Gate gate;
  FaultyModel held(*model_.model, gate.At(0));
  Grid grid(held, options_, 1, {model_.model.get(), model_.model.get()}, options_);
  Answers answers(4);
  grid.Submit(answers, std::vector(4, PromptOf(30, 400)));
  grid.Step();
  grid.servers->EndAll("over");
  EXPECT_TRUE(grid.servers->has_ended());
  for (const Answer& answer : answers.all()) EXPECT_EQ(answer.error, "over");
  gate.Open();
}

TEST_F(TinyGrid, RequestsThatBeginAlikeGoToTheSameGeneration) {
  options_.prefix_cache = true;
  Grid grid(*model_.model, options_, 1, {model_.model.get(), model_.model.get()}, options_,
            {.routing = runtime::ServerRouting::kCacheAware});
  std::map<int64_t, size_t> server_of;
  for (const int64_t length : {100, 101, 101, 100, 100, 101}) {
    const size_t server = grid.ServerOf(PromptOf(length, 3));
    EXPECT_EQ(server_of.emplace(length, server).first->second, server) << length;
  }
  EXPECT_NE(server_of[100], server_of[101]);
}

TEST_F(TinyGrid, AGenerationComputesTheRestOfAPromptThatItKnows) {
  options_.prefix_cache = true;
  Grid grid(*model_.model, options_, 1, {model_.model.get(), model_.model.get()}, options_,
            {.routing = runtime::ServerRouting::kCacheAware, .max_own_prefill = 40});
  runtime::Engine engine(*model_.model, options_);
  runtime::EngineLoop alone(engine, nullptr);
  struct Turn {
    int64_t length = 0;
    int64_t num_own = 0;  // of the turns so far
  };
  runtime::Request request = PromptOf(100, 3);
  const std::vector<int32_t> beginning = request.prompt;
  for (const Turn& turn : {Turn{100, 0}, {136, 1}, {137, 2}, {200, 2}, {201, 3}}) {
    request.prompt = beginning;
    for (int64_t i = 100; i < turn.length; ++i)
      request.prompt.push_back(static_cast<int32_t>((i * 7) % 50));
    request.sampling.num_logprobs = 2;
    const Answers answers = grid.Run({request});
    const Answers expected = RunAll(alone, {request});
    EXPECT_EQ(answers[0].tokens, expected[0].tokens) << turn.length;
    EXPECT_EQ(answers[0].logprobs, expected[0].logprobs) << turn.length;
    EXPECT_EQ(grid.servers->AllFigures().num_own_prompts, turn.num_own) << turn.length;
  }
  // Of prompts whose log probabilities are asked for nothing is reused.
  Answers answers(1);
  grid.SubmitWithPromptLogprobs(answers, request);
  grid.RunToEnd();
  EXPECT_EQ(grid.servers->AllFigures().num_own_prompts, 3);
  grid.ExpectNothingLeft();
}

}  // namespace
}  // namespace wideload
