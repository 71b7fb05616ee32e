// Context servers in processes of their own, whose caches lie in shared memory, and a generation
// server here: the bits of one engine whatever the layouts, and what the end of a process costs.
#include <gtest/gtest.h>

#include <csignal>
#include <set>

#include "comm/local/local_communicator.h"
#include "context_process.h"
#include "exchange/local_fabric.h"
#include "runtime/processes/rank_server.h"
#include "runtime/servers/remote_contexts.h"
#include "support/random_layout.h"
#include "support/rank_processes.h"
#include "support/test_data.h"
#include "support/test_engine.h"

namespace wideload {
namespace {

using runtime::Delta;
using runtime::EngineOptions;
using runtime::FinishReason;
using testing_support::ContextProcess;
using testing_support::Contexts;
using testing_support::kEndsAlone;
using testing_support::kEndsWell;
using testing_support::LoadTestModel;
using testing_support::SourcePath;
using testing_support::TestModel;
using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kNoTimeout{600'000};

struct Answer {
  std::vector<int32_t> tokens;
  std::vector<std::pair<int32_t, float>> logprobs;  // of the prompt's tokens, then of all deltas
  FinishReason finish = FinishReason::kNone;
  std::string error;
  int64_t num_cached = 0;
  bool operator==(const Answer&) const = default;
};

struct Answers {
  explicit Answers(size_t count) : all(count) {}
  runtime::Job JobOf(const runtime::Request& request, size_t i, int32_t prompt_logprobs = -1) {
    return {.request = request,
            .text = {},
            .prompt_logprobs = prompt_logprobs,
            .deadline = {},
            .sink = [this, i](const Delta& delta) { Take(all[i], delta); }};
  }
  static void Take(Answer& answer, const Delta& delta) {
    ASSERT_EQ(answer.finish, FinishReason::kNone);
    for (const auto& position : delta.prompt_logprobs)
      for (const runtime::TokenLogprob& p : position) answer.logprobs.emplace_back(p.id, p.logprob);
    for (const runtime::TokenLogprob& p : delta.logprobs)
      answer.logprobs.emplace_back(p.id, p.logprob);
    if (delta.token >= 0) answer.tokens.push_back(delta.token);
    if (delta.token >= 0) answer.num_cached = delta.num_cached_tokens;
    answer.finish = delta.finish;
    answer.error = delta.error;
  }
  bool have_ended() const {
    return std::ranges::all_of(all,
                               [](const Answer& a) { return a.finish != FinishReason::kNone; });
  }
  std::vector<Answer> all;
};

void RunToEnd(runtime::EngineLoop& loop, const Answers& answers) {
  while (!answers.have_ended()) {
    if (loop.idle()) loop.Wait(std::chrono::milliseconds(10));
    loop.Step();
  }
}

Answers RunAll(runtime::EngineLoop& loop, const std::vector<runtime::Request>& requests) {
  Answers answers(requests.size());
  for (size_t i = 0; i < requests.size(); ++i)
    loop.Submit(answers.JobOf(requests[i], i, i % 3 == 2 ? 2 : -1));
  RunToEnd(loop, answers);
  return answers;
}

EngineOptions OptionsOf(const TestModel& model, int32_t groups) {
  EngineOptions options = testing_support::TestOptions(model.config, compute::AutoKernelSet());
  options.layout = {.tp = model.tensor_ranks, .dp = groups};
  options.layout.moe_ep = options.layout.stage();
  const auto experts = static_cast<int32_t>(model.config.num_experts);
  options.num_slots =
      options.layout.moe_ep * std::min(experts, experts / options.layout.moe_ep + 1);
  return options;
}

// Context servers and an engine that goes on. The ranks of this one take orders, as processes do.
class Servers {
 public:
  Servers(const std::vector<std::unique_ptr<ContextProcess>>& contexts, const TestModel& model,
          const EngineOptions& options, std::chrono::milliseconds timeout = kNoTimeout,
          runtime::ServerRouting routing = runtime::ServerRouting::kRoundRobin)
      : ranks_(options.num_ranks(), {.deadline = std::chrono::seconds(20)}),
        orders_(options.num_ranks(), runtime::MessageChannel::SegmentBytes(options.num_ranks())) {
    runtime::RemoteContexts::Parts parts{.caches = &caches_,
                                         .vocab_size = model.config.vocab_size,
                                         .routing = routing,
                                         .capacity = runtime::ServerRouter::CapacityOf(options)};
    for (const auto& context : contexts) {
      context->Attach(caches_);
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
    loop_->UseContext(*prompts_, timeout);
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
            .contexts = &caches_};
  }

  comm::LocalGroup ranks_;
  exchange::LocalFabrics orders_;
  std::optional<exchange::LocalFabrics> rows_;
  runtime::ContextCaches caches_;
  std::vector<std::jthread> servers_;
  std::unique_ptr<runtime::Engine> engine_;
  std::unique_ptr<runtime::RemoteContexts> prompts_;
  std::unique_ptr<runtime::EngineLoop> loop_;
};

std::vector<runtime::Request> Requests(const TestModel& model, size_t count, uint64_t seed) {
  std::vector<runtime::Request> requests = testing_support::DrawRequests(model, count, seed);
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].prompt_logits = false;
    requests[i].sampling.num_logprobs = static_cast<int32_t>(i % 3);
    requests[i].max_tokens = static_cast<int64_t>(i % 5 == 4 ? i % 2 : 3 + i);
    requests[i].min_tokens = i % 2 == 0 ? 0 : requests[i].max_tokens / 2;
  }
  return requests;
}

struct Sides {
  int32_t context_tp, context_dp, generation_tp, generation_dp;
};

// Grouped, latent and windowed attention; prompts in pieces.
TEST(ServerProcesses, GiveTheBitsOfOneEngineWhateverTheLayouts) {
  const Sides all_sides[] = {{1, 1, 1, 1}, {2, 1, 1, 2}, {1, 2, 2, 1}, {3, 1, 2, 2}};
  size_t i = 0;
  for (const std::string name : {"qwen3-moe", "deepseek-v3", "gpt-oss", "llama"}) {
    const std::string folder = SourcePath("testdata/models/tiny-" + name);
    const TestModel one = LoadTestModel(folder, compute::AutoKernelSet());
    const std::vector<runtime::Request> requests = Requests(one, 8, i);
    const Sides& sides = all_sides[i++];
    const TestModel context = LoadTestModel(folder, compute::AutoKernelSet(), sides.context_tp);
    const TestModel generation =
        LoadTestModel(folder, compute::AutoKernelSet(), sides.generation_tp);
    EngineOptions context_options = OptionsOf(context, sides.context_dp);
    context_options.max_num_tokens = 24;
    const auto contexts = Contexts(2, context, context_options);
    const EngineOptions options = OptionsOf(generation, sides.generation_dp);
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
      EXPECT_TRUE(answers.all[r] == expected.all[r]) << folder << ", request " << r;
  }
}

class TinyServers : public testing::Test {
 protected:
  TinyServers()
      : model_(
            LoadTestModel(SourcePath("testdata/models/tiny-qwen3-moe"), compute::AutoKernelSet())),
        options_(OptionsOf(model_, 1)) {}
  static runtime::Request Prompt(int64_t length, int64_t max_tokens) {
    runtime::Request request;
    for (int64_t i = 0; i < length; ++i)
      request.prompt.push_back(static_cast<int32_t>((i * 37 + length) % 311));
    request.max_tokens = max_tokens;
    return request;
  }
  // What a server says of itself comes with its next message but one.
  static bool BecomesIdle(const runtime::RemoteContexts& prompts, size_t i) {
    return Becomes(prompts, i, [](const runtime::ContextFigures& figures) {
      return figures.kv_usage == 0 && figures.num_held == 0;
    });
  }
  template <class Condition>
  static bool Becomes(const runtime::RemoteContexts& prompts, size_t i, Condition is_so) {
    const auto no_later = Clock::now() + std::chrono::seconds(20);
    while (!is_so(prompts.figures()[i])) {
      if (Clock::now() > no_later) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
  }

  TestModel model_;
  EngineOptions options_;
};

TEST_F(TinyServers, AKilledServerCostsThePromptsOnItAndNoOthers) {
  const auto contexts = Contexts(2, model_, options_);
  Servers servers(contexts, model_, options_);
  Answers before(2);  // one of each
  for (size_t i = 0; i < 2; ++i) servers.loop().Submit(before.JobOf(Prompt(30, 80), i));
  while (before.all[0].tokens.size() < 2 || before.all[1].tokens.size() < 2) servers.loop().Step();
  Answers during(4);  // each second one on the server that dies before it can answer
  ::kill(contexts[0]->pid(), SIGSTOP);
  for (size_t i = 0; i < 4; ++i) servers.loop().Submit(during.JobOf(Prompt(31, 20), i));
  while (during.all[1].tokens.empty() || during.all[3].tokens.empty()) servers.loop().Step();
  contexts[0]->Kill();
  RunToEnd(servers.loop(), during);
  RunToEnd(servers.loop(), before);
  for (const Answer& answer : before.all) EXPECT_EQ(answer.tokens.size(), 80U) << answer.error;
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(during.all[i].error, i % 2 == 0 ? "the engine has stopped" : "");
    EXPECT_EQ(during.all[i].tokens.size(), i % 2 == 0 ? 0U : 20U);
  }
  EXPECT_FALSE(servers.prompts().is_running(0));
  const Answers after = RunAll(servers.loop(), std::vector(4, Prompt(32, 5)));
  for (const Answer& answer : after.all) EXPECT_EQ(answer.error, "");
  EXPECT_FALSE(servers.prompts().Stop());
  EXPECT_EQ(contexts[1]->End(), kEndsAlone);
}

// Beginnings that take turns with the servers, so that each would come to the other one.
TEST_F(TinyServers, PromptsThatBeginAlikeGoToTheServerThatHasTheirBeginning) {
  options_.prefix_cache = true;
  const auto contexts = Contexts(2, model_, options_);
  Servers servers(contexts, model_, options_, kNoTimeout, runtime::ServerRouting::kCacheAware);
  std::set<int64_t> known;
  for (const int64_t length : {100, 101, 101, 100, 100, 101}) {
    const Answers answers = RunAll(servers.loop(), {Prompt(length, 3)});
    EXPECT_EQ(answers.all[0].num_cached, known.insert(length).second ? 0 : 96);
  }
}

TEST_F(TinyServers, WithoutAServerRequestsEndAtOnce) {
  const auto contexts = Contexts(1, model_, options_);
  Servers servers(contexts, model_, options_);
  contexts[0]->Kill();
  const Answers answers = RunAll(servers.loop(), std::vector(3, Prompt(32, 5)));
  for (const Answer& answer : answers.all) EXPECT_EQ(answer.error, "the engine has stopped");
  EXPECT_FALSE(servers.prompts().is_any_running());
}

// A prompt that was computed before its server died lies in memory that stays.
TEST_F(TinyServers, AComputedPromptOutlivesItsServer) {
  const auto contexts = Contexts(1, model_, options_);
  options_.max_batch_size = 1;
  Servers servers(contexts, model_, options_);
  Answers answers(2);
  for (size_t i = 0; i < 2; ++i) servers.loop().Submit(answers.JobOf(Prompt(40, 60), i));
  while (answers.all[1].tokens.empty()) servers.loop().Step();
  ASSERT_EQ(answers.all[1].tokens.size(), 1U);
  contexts[0]->Kill();
  RunToEnd(servers.loop(), answers);
  runtime::Engine engine(*model_.model, options_);
  runtime::EngineLoop alone(engine, nullptr);
  Answers expected(1);
  alone.Submit(expected.JobOf(Prompt(40, 60), 0));
  RunToEnd(alone, expected);
  for (const Answer& answer : answers.all) EXPECT_EQ(answer.tokens, expected.all[0].tokens);
}

TEST_F(TinyServers, WhatNobodyWaitsForIsGivenBack) {
  const auto contexts = Contexts(1, model_, options_);
  options_.max_batch_size = 1;
  Servers servers(contexts, model_, options_, std::chrono::milliseconds(50));
  Answers answers(4);
  std::vector<runtime::JobId> ids;
  for (size_t i = 0; i < 4; ++i)
    ids.push_back(servers.loop().Submit(answers.JobOf(Prompt(40, 100), i)));
  servers.loop().Cancel(ids[3]);  // perhaps before its prompt is computed
  servers.loop().Step();
  // All are computed before the first one goes on, so that it is under way when time is over.
  EXPECT_TRUE(Becomes(servers.prompts(), 0, [](const runtime::ContextFigures& figures) {
    return figures.num_held >= 3;
  }));
  while (answers.all[1].tokens.empty() || answers.all[2].tokens.empty()) servers.loop().Step();
  servers.loop().Cancel(ids[2]);  // while it waits to be fetched
  servers.now += std::chrono::milliseconds(50);
  servers.loop().Step();
  EXPECT_EQ(answers.all[1].error,
            "the keys and values of the prompt were not fetched within 50 ms");
  RunToEnd(servers.loop(), answers);
  EXPECT_EQ(answers.all[0].tokens.size(), 100U);
  EXPECT_TRUE(BecomesIdle(servers.prompts(), 0));
  EXPECT_TRUE(servers.prompts().Stop());
  EXPECT_EQ(contexts[0]->End(), kEndsWell);
}

}  // namespace
}  // namespace wideload
