// Context servers in processes of their own, whose caches lie in shared memory, and a generation
// server here: the bits of one engine whatever the layouts, and what the end of a process costs.
#include <gtest/gtest.h>

#include <csignal>
#include <deque>
#include <set>

#include "comm/local/local_communicator.h"
#include "context_process.h"
#include "exchange/local_fabric.h"
#include "request_answers.h"
#include "runtime/processes/rank_server.h"
#include "runtime/servers/remote_contexts.h"
#include "support/test_data.h"

namespace wideload {
namespace {

using namespace testing_support;  // NOLINT(google-build-using-namespace): all of this is with them
using runtime::EngineOptions;
using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kNoTimeout{600'000};

// Context servers and an engine that goes on. The ranks of this one take orders, as processes do.
class Servers {
 public:
  struct More {
    std::chrono::milliseconds timeout = kNoTimeout;
    runtime::ServerRouting routing = runtime::ServerRouting::kRoundRobin;
    std::chrono::milliseconds longest_silence{20'000};
    // Of the last rank: what it asks for the blocks of server 0. May be null.
    const comm::LifeCard* wrong_service = nullptr;
  };
  Servers(const std::vector<std::unique_ptr<ContextProcess>>& contexts, const TestModel& model,
          const EngineOptions& options)
      : Servers(contexts, model, options, More{}) {}
  Servers(const std::vector<std::unique_ptr<ContextProcess>>& contexts, const TestModel& model,
          const EngineOptions& options, const More& more)
      : ranks_(options.num_ranks(), {.deadline = std::chrono::seconds(20)}),
        orders_(options.num_ranks(), runtime::MessageChannel::SegmentBytes(options.num_ranks())) {
    for (int r = 0; r < options.num_ranks(); ++r) caches_.emplace_back(more.longest_silence);
    runtime::RemoteContexts::Parts parts{.caches = &caches_.front(),
                                         .vocab_size = model.config.vocab_size,
                                         .routing = more.routing,
                                         .capacity = runtime::ServerRouter::CapacityOf(options)};
    for (const auto& context : contexts) {
      for (runtime::ContextCaches& caches : caches_)
        context->Attach(caches, context == contexts[0] && &caches == &caches_.back()
                                    ? more.wrong_service
                                    : nullptr);
      parts.sockets.push_back(context->socket());
    }
    if (const int64_t bytes = runtime::ExchangeSegmentBytes(*model.model, options); bytes > 0)
      rows_.emplace(options.num_ranks(), bytes);
    for (int r = 1; r < options.num_ranks(); ++r)
      servers_.emplace_back([this, &model, &options, r] {
        runtime::RankServer(*model.model, options, Links(r)).Serve();
      });
    engine_ = std::make_unique<runtime::Engine>(*model.model, options, Links(0));
    prompts_ = std::make_unique<runtime::RemoteContexts>(std::move(parts));
    loop_ = std::make_unique<runtime::EngineLoop>(*engine_, nullptr, [this] { return now; });
    loop_->UseContext(*prompts_, more.timeout);
  }
  ~Servers() {
    loop_.reset();
    prompts_.reset();
    engine_.reset();
  }

  runtime::EngineLoop& loop() { return *loop_; }
  runtime::Engine& engine() { return *engine_; }
  runtime::RemoteContexts& prompts() { return *prompts_; }

  Clock::time_point now;

 private:
  runtime::RankLinks Links(int r) {
    return {.group = &ranks_.rank(r),
            .exchange = rows_ ? &rows_->rank(r) : nullptr,
            .orders = &orders_.rank(r),
            .contexts = &caches_[static_cast<size_t>(r)]};
  }

  comm::LocalGroup ranks_;
  exchange::LocalFabrics orders_;
  std::optional<exchange::LocalFabrics> rows_;
  std::deque<runtime::ContextCaches> caches_;  // [ranks], as of processes
  std::vector<std::jthread> servers_;
  std::unique_ptr<runtime::Engine> engine_;
  std::unique_ptr<runtime::RemoteContexts> prompts_;
  std::unique_ptr<runtime::EngineLoop> loop_;
};

class ServerProcesses : public testing::TestWithParam<Way> {};
constexpr auto kWays = [](const auto& info) {
  return info.param == Way::kMapped ? "Mapped" : "Asked";
};

// Grouped, latent and windowed attention; prompts in pieces.
TEST_P(ServerProcesses, GiveTheBitsOfOneEngineWhateverTheLayouts) {
  const Sides all_sides[] = {
      {{1, 1}, {1, 1}},
      {{2, 1}, {1, 2}},
      {{1, 2}, {2, 1}},
      {{3, 1}, {2, 2}},
      {.context = {.pp = 2}, .generation = {.tp = 2}},
      {.context = {.cp = 2}, .generation = {.pp = 2, .cp = 2}},
      {.context = {.tp = 2, .pp = 2, .stage_layers = {1, 3}}, .generation = {.dp = 2, .pp = 2}},
      {.context = {.pp = 3}, .generation = {.cp = 2}}};
  size_t i = 0;
  for (const std::string name : {"qwen3-moe", "deepseek-v3", "gpt-oss", "llama", "qwen3-moe",
                                 "deepseek-v3", "gpt-oss", "llama"}) {
    const std::string folder = SourcePath("testdata/models/tiny-" + name);
    const TestModel one = LoadTestModel(folder, compute::AutoKernelSet());
    const std::vector<runtime::Request> requests = LongRequests(one, 8, i);
    const Sides& sides = all_sides[i++];
    const TestModel context = LoadTestModel(folder, compute::AutoKernelSet(), sides.context.tp);
    const TestModel generation =
        LoadTestModel(folder, compute::AutoKernelSet(), sides.generation.tp);
    EngineOptions context_options = OptionsOf(context, sides.context);
    context_options.max_num_tokens = 24;
    const auto contexts = Contexts(2, context, context_options, GetParam());
    const EngineOptions options = OptionsOf(generation, sides.generation);
    Servers servers(contexts, generation, options);
    const Answers answers = RunAll(servers.loop(), requests);
    EXPECT_GT(servers.engine().hand_over_figures().num_prompts, 0);
    EXPECT_GT(servers.engine().hand_over_figures().num_bytes, 0);
    servers.loop().Step();
    EXPECT_EQ(servers.engine().scheduler().kv_usage(), 0);
    EXPECT_TRUE(servers.prompts().Stop());
    for (const auto& server : contexts) EXPECT_EQ(server->End(), kEndsWell);
    runtime::Engine engine(*one.model, OptionsOf(one, 1));
    runtime::EngineLoop alone(engine, nullptr);
    const Answers expected = RunAll(alone, requests);
    for (size_t r = 0; r < requests.size(); ++r)
      EXPECT_TRUE(answers[r] == expected[r]) << folder << ", request " << r;
  }
}

INSTANTIATE_TEST_SUITE_P(Both, ServerProcesses, testing::Values(Way::kMapped, Way::kAsked), kWays);

class TinyServers : public testing::Test {
 protected:
  TinyServers()
      : model_(
            LoadTestModel(SourcePath("testdata/models/tiny-qwen3-moe"), compute::AutoKernelSet())),
        options_(OptionsOf(model_, 1)) {}
  static bool BecomesIdle(const runtime::RemoteContexts& prompts, size_t i) {
    return Becomes(prompts, i, [](const runtime::ContextFigures& figures) {
      return figures.kv_usage == 0 && figures.num_held == 0;
    });
  }
  // That a server is gone another thread finds out, perhaps after its blocks are missed.
  static bool BecomesGone(const runtime::RemoteContexts& prompts, size_t i) {
    return Becomes(prompts, i,
                   [](const runtime::ContextFigures& figures) { return !figures.is_running; });
  }
  static bool HasComputed(const runtime::RemoteContexts& prompts, size_t i, int64_t count) {
    return Becomes(prompts, i, [count](const runtime::ContextFigures& figures) {
      return figures.num_prompts >= count;
    });
  }

  TestModel model_;
  EngineOptions options_;
};

class TinyServersBothWays : public TinyServers, public testing::WithParamInterface<Way> {};
INSTANTIATE_TEST_SUITE_P(Both, TinyServersBothWays, testing::Values(Way::kMapped, Way::kAsked),
                         kWays);

TEST_P(TinyServersBothWays, AKilledServerCostsThePromptsOnItAndNoOthers) {
  const auto contexts = Contexts(2, model_, options_, GetParam());
  Servers servers(contexts, model_, options_);
  Answers before(2);  // one of each
  for (size_t i = 0; i < 2; ++i) servers.loop().Submit(before.JobOf(PromptOf(30, 80), i));
  while (before[0].tokens.size() < 2 || before[1].tokens.size() < 2) servers.loop().Step();
  Answers during(4);  // each second one on the server that dies before it can answer
  Halt(contexts[0]->pid());
  for (size_t i = 0; i < 4; ++i) servers.loop().Submit(during.JobOf(PromptOf(31, 20), i));
  while (during[1].tokens.empty() || during[3].tokens.empty()) servers.loop().Step();
  contexts[0]->Kill();
  RunToEnd(servers.loop(), during);
  RunToEnd(servers.loop(), before);
  for (const Answer& answer : before.all()) EXPECT_EQ(answer.tokens.size(), 80U) << answer.error;
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(during[i].error, i % 2 == 0 ? "the engine has stopped" : "");
    EXPECT_EQ(during[i].tokens.size(), i % 2 == 0 ? 0U : 20U);
  }
  EXPECT_FALSE(servers.prompts().is_running(0));
  const Answers after = RunAll(servers.loop(), std::vector(4, PromptOf(32, 5)));
  for (const Answer& answer : after.all()) EXPECT_EQ(answer.error, "");
  EXPECT_FALSE(servers.prompts().Stop());
  EXPECT_EQ(contexts[1]->End(), kEndsAlone);
}

// Beginnings that take turns with the servers, so that each would come to the other one.
TEST_F(TinyServers, PromptsThatBeginAlikeGoToTheServerThatHasTheirBeginning) {
  options_.prefix_cache = true;
  const auto contexts = Contexts(2, model_, options_);
  Servers servers(contexts, model_, options_, {.routing = runtime::ServerRouting::kCacheAware});
  std::set<int64_t> known;
  for (const int64_t length : {100, 101, 101, 100, 100, 101}) {
    const Answers answers = RunAll(servers.loop(), {PromptOf(length, 3)});
    EXPECT_EQ(answers[0].num_cached, known.insert(length).second ? 0 : 96);
  }
}

TEST_F(TinyServers, WithoutAServerRequestsEndAtOnce) {
  const auto contexts = Contexts(1, model_, options_);
  Servers servers(contexts, model_, options_);
  contexts[0]->Kill();
  const Answers answers = RunAll(servers.loop(), std::vector(3, PromptOf(32, 5)));
  for (const Answer& answer : answers.all()) EXPECT_EQ(answer.error, "the engine has stopped");
  EXPECT_FALSE(servers.prompts().is_any_running());
}

// A prompt that was computed before its server died lies in memory that stays.
TEST_F(TinyServers, AComputedPromptOutlivesItsServer) {
  const auto contexts = Contexts(1, model_, options_);
  options_.max_batch_size = 1;
  Servers servers(contexts, model_, options_);
  Answers answers(2);
  for (size_t i = 0; i < 2; ++i) servers.loop().Submit(answers.JobOf(PromptOf(40, 60), i));
  while (answers[1].tokens.empty()) servers.loop().Step();
  ASSERT_EQ(answers[1].tokens.size(), 1U);
  contexts[0]->Kill();
  RunToEnd(servers.loop(), answers);
  runtime::Engine engine(*model_.model, options_);
  runtime::EngineLoop alone(engine, nullptr);
  Answers expected(1);
  alone.Submit(expected.JobOf(PromptOf(40, 60), 0));
  RunToEnd(alone, expected);
  for (const Answer& answer : answers.all()) EXPECT_EQ(answer.tokens, expected[0].tokens);
}

TEST_P(TinyServersBothWays, WhatNobodyWaitsForIsGivenBack) {
  const auto contexts = Contexts(1, model_, options_, GetParam());
  options_.max_batch_size = 1;
  Servers servers(contexts, model_, options_, {.timeout = std::chrono::milliseconds(50)});
  Answers answers(4);
  std::vector<runtime::JobId> ids;
  for (size_t i = 0; i < 4; ++i)
    ids.push_back(servers.loop().Submit(answers.JobOf(PromptOf(40, 100), i)));
  servers.loop().Cancel(ids[3]);  // perhaps before its prompt is computed
  servers.loop().Step();
  // All are computed before the first one goes on, so that it is under way when time is over.
  EXPECT_TRUE(Becomes(servers.prompts(), 0, [](const runtime::ContextFigures& figures) {
    return figures.num_held >= 3;
  }));
  while (answers[1].tokens.empty() || answers[2].tokens.empty()) servers.loop().Step();
  servers.loop().Cancel(ids[2]);  // while it waits to be fetched
  servers.now += std::chrono::milliseconds(50);
  servers.loop().Step();
  EXPECT_EQ(answers[1].error, "the keys and values of the prompt were not fetched within 50 ms");
  RunToEnd(servers.loop(), answers);
  EXPECT_EQ(answers[0].tokens.size(), 100U);
  EXPECT_TRUE(BecomesIdle(servers.prompts(), 0));
  EXPECT_TRUE(servers.prompts().Stop());
  EXPECT_EQ(contexts[0]->End(), kEndsWell);
}

// What one engine makes of the request.
Answer AnswerOf(const TestModel& model, const EngineOptions& options,
                const runtime::Request& request) {
  runtime::Engine engine(*model.model, options);
  runtime::EngineLoop alone(engine, nullptr);
  return RunAll(alone, {request})[0];
}

// A prompt of each server waits behind one that runs.
TEST_F(TinyServers, APromptThatCannotBeFetchedEndsItsRequestAndLeavesNothing) {
  const std::string folder = SourcePath("testdata/models/tiny-qwen3-moe");
  const TestModel divided = LoadTestModel(folder, compute::AutoKernelSet(), 2);
  for (const TestModel* const model : std::initializer_list<const TestModel*>{&model_, &divided}) {
    EngineOptions options = OptionsOf(*model, 1);
    options.prefix_cache = true;
    const auto contexts = Contexts(2, model_, options_, Way::kAsked);
    options.max_batch_size = 1;
    Servers servers(contexts, *model, options);
    Answers answers(3);
    const runtime::Request lost = PromptOf(70, 20);
    servers.loop().Submit(answers.JobOf(PromptOf(40, 80), 0));
    while (answers[0].tokens.size() < 2) servers.loop().Step();
    servers.loop().Submit(answers.JobOf(lost, 1));
    servers.loop().Submit(answers.JobOf(PromptOf(41, 20), 2));
    servers.loop().Step();
    ASSERT_TRUE(HasComputed(servers.prompts(), 0, 2));
    ASSERT_TRUE(HasComputed(servers.prompts(), 1, 1));
    contexts[1]->Kill();
    RunToEnd(servers.loop(), answers);
    EXPECT_EQ(answers[0].tokens.size(), 80U) << answers[0].error;
    EXPECT_EQ(answers[2].tokens.size(), 20U) << answers[2].error;
    EXPECT_EQ(answers[1].tokens.size(), 1U);
    EXPECT_EQ(
        answers[1].error,
        fmt::format("the keys and values of the prompt could not be read: {}rank 0 of context "
                    "server 1 has not sent them",
                    model == &divided ? "rank 0: " : ""));
    servers.loop().Step();
    EXPECT_EQ(servers.engine().scheduler().kv_usage(), 0);
    ASSERT_TRUE(BecomesGone(servers.prompts(), 1));  // so that it is not asked again
    const Answers again = RunAll(servers.loop(), {lost});
    EXPECT_EQ(again[0].tokens, AnswerOf(model_, options_, lost).tokens) << again[0].error;
  }
}

// The other rank of the group has read its part.
TEST_F(TinyServers, ARankThatCannotFetchEndsTheRequestForItsGroup) {
  const TestModel divided =
      LoadTestModel(SourcePath("testdata/models/tiny-qwen3-moe"), compute::AutoKernelSet(), 2);
  runtime::MessageListener nobody(true);
  std::jthread greets([&] { nobody.AcceptAndGreet(); });  // and goes
  const auto contexts = Contexts(2, model_, options_, Way::kAsked);
  Servers servers(contexts, divided, OptionsOf(divided, 1), {.wrong_service = &nobody.card()});
  greets.join();
  const runtime::Request request = PromptOf(70, 20);
  const Answers answers = RunAll(servers.loop(), std::vector(4, request));
  const Answer expected = AnswerOf(model_, options_, request);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(answers[i].error.find("rank 1: rank 0 of context server 0") != std::string::npos,
              i % 2 == 0);
    if (i % 2 == 0) continue;
    EXPECT_EQ(answers[i].tokens, expected.tokens) << answers[i].error;
  }
  servers.loop().Step();
  EXPECT_EQ(servers.engine().scheduler().kv_usage(), 0);
}

TEST_F(TinyServers, AServerThatSaysNothingIsGivenUp) {
  const auto contexts = Contexts(1, model_, options_, Way::kAsked);
  options_.max_batch_size = 1;
  Servers servers(contexts, model_, options_, {.longest_silence = std::chrono::milliseconds(1000)});
  Answers answers(2);
  servers.loop().Submit(answers.JobOf(PromptOf(40, 80), 0));
  while (answers[0].tokens.size() < 2) servers.loop().Step();
  servers.loop().Submit(answers.JobOf(PromptOf(41, 20), 1));
  servers.loop().Step();
  ASSERT_TRUE(HasComputed(servers.prompts(), 0, 2));
  Halt(contexts[0]->pid());
  RunToEnd(servers.loop(), answers);
  EXPECT_EQ(answers[0].tokens.size(), 80U) << answers[0].error;
  EXPECT_TRUE(answers[1].error.ends_with("has not sent them")) << answers[1].error;
}

}  // namespace
}  // namespace wideload
