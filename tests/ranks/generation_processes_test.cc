// Several generation servers, one of them in a process of its own: the bits of one engine, what the
// end of that process costs, and that its leases end.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <optional>
#include <thread>

#include "context_process.h"
#include "request_answers.h"
#include "runtime/generation_engines.h"
#include "runtime/servers/generation_server.h"
#include "runtime/servers/remote_contexts.h"
#include "runtime/servers/remote_engine.h"
#include "support/test_data.h"

namespace wideload {
namespace {

using namespace testing_support;  // NOLINT(google-build-using-namespace): all of this is with them
using runtime::Delta;
using runtime::EngineOptions;
using Clock = std::chrono::steady_clock;

// A server that generates, forked: its ranks are threads of that process.
class GenerationProcess {
 public:
  GenerationProcess(const std::vector<std::unique_ptr<ContextProcess>>& contexts,
                    const TestModel& model, const EngineOptions& options) {
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::close(ends[0]);
      runtime::MessageSocket socket{Descriptor(ends[1])};
      ::_exit(Serve(contexts, model, options, socket));
    }
    ::close(ends[1]);
    socket_ = std::make_unique<runtime::MessageSocket>(Descriptor(ends[0]));
  }
  ~GenerationProcess() { Kill(); }

  std::unique_ptr<runtime::MessageSocket> TakeSocket() { return std::move(socket_); }
  void Kill() {
    if (pid_ < 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(std::exchange(pid_, -1), nullptr, 0);
  }
  pid_t pid() const { return pid_; }
  int End() {
    int status = -1;
    ::waitpid(std::exchange(pid_, -1), &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

 private:
  static int Serve(const std::vector<std::unique_ptr<ContextProcess>>& contexts,
                   const TestModel& model, const EngineOptions& options,
                   runtime::MessageSocket& socket) {
    try {
      runtime::ContextCaches caches;
      for (const auto& context : contexts) context->Attach(caches);
      runtime::Engine engine(*model.model, options);
      const auto no_grammars = []() -> grammar::GrammarCache& {
        throw std::runtime_error("no request here has a grammar");
      };
      runtime::GenerationServer server(engine, caches, socket, no_grammars);
      const bool are_all_there = server.Serve();
      return engine.scheduler().kv_usage() > 0 ? 4 : are_all_there ? kEndsWell : kEndsAlone;
    } catch (const std::exception&) {
      return 5;
    }
  }

  std::unique_ptr<runtime::MessageSocket> socket_;
  pid_t pid_ = -1;
};

// Two context servers, a generation server here, and one in a process of its own.
class SeveralServers {
 public:
  struct More {
    runtime::ServerRouting routing = runtime::ServerRouting::kRoundRobin;
    std::optional<int64_t> max_own_prefill = std::nullopt;
    int32_t max_retries = 0;
  };
  SeveralServers(const TestModel& context, const EngineOptions& context_options,
                 const TestModel& generation, const EngineOptions& options)
      : SeveralServers(context, context_options, generation, options, More{}) {}
  SeveralServers(const TestModel& context, const EngineOptions& context_options,
                 const TestModel& generation, const EngineOptions& options, const More& more)
      : contexts(Contexts(2, context, context_options)),
        other(contexts, generation, options),
        engine_(*generation.model, options) {
    runtime::RemoteContexts::Parts parts{
        .caches = &caches_,
        .vocab_size = generation.config.vocab_size,
        .capacity = runtime::ServerRouter::CapacityOf(context_options)};
    for (const auto& process : contexts) {
      process->Attach(caches_);
      parts.sockets.push_back(process->socket());
    }
    prompts = std::make_unique<runtime::RemoteContexts>(std::move(parts));
    remote = std::make_unique<runtime::RemoteEngine>(other.TakeSocket(), "generation server 1");
    runtime::Engine* const here[] = {&engine_};
    runtime::TokenEngine* const others[] = {remote.get()};
    servers = std::make_unique<runtime::GenerationEngines>(
        here,
        runtime::GenerationEngines::Common{.tokenizer = nullptr,
                                           .contexts = prompts.get(),
                                           .transfer_timeout = kLongTimeout,
                                           .routing = more.routing,
                                           .max_own_prefill = more.max_own_prefill,
                                           .max_retries = more.max_retries},
        others);
  }

  void Submit(Answers& answers, const std::vector<runtime::Request>& requests) {
    num_left = std::ssize(requests);
    for (size_t i = 0; i < requests.size(); ++i) {
      runtime::Job job = answers.JobOf(requests[i], i, i % 3 == 2 ? 2 : -1);
      job.sink = [this, i, sink = std::move(job.sink)](const Delta& delta) {
        sink(delta);
        if (i % 2 == 1) ++num_other_deltas;
        if (delta.is_last()) --num_left;
      };
      servers->Submit(std::move(job));
    }
  }
  Answers Run(const std::vector<runtime::Request>& requests) {
    Answers answers(requests.size());
    Submit(answers, requests);
    StepWhile([&] { return num_left > 0; });
    return answers;
  }
  template <class Condition>
  void StepWhile(Condition is_so) {
    while (is_so()) {
      servers->Step();
      if (servers->idle()) servers->Wait(std::chrono::milliseconds(1));
    }
  }

  std::vector<std::unique_ptr<ContextProcess>> contexts;
  GenerationProcess other;
  std::atomic<int64_t> num_left{0};
  std::atomic<int64_t> num_other_deltas{0};  // of requests of odd numbers

 private:
  runtime::Engine engine_;
  runtime::ContextCaches caches_;

 public:
  std::unique_ptr<runtime::RemoteContexts> prompts;
  std::unique_ptr<runtime::RemoteEngine> remote;
  std::unique_ptr<runtime::GenerationEngines> servers;
};

TEST(GenerationProcesses, OfWhichOneIsHereGiveTheBitsOfOneEngine) {
  const Sides all_sides[] = {{{2, 1}, {1, 2}}, {{1, 1}, {2, 1}}, {{1, 2}, {1, 1}}};
  size_t i = 0;
  for (const std::string name : {"qwen3-moe", "deepseek-v3", "gpt-oss"}) {
    const std::string folder = SourcePath("testdata/models/tiny-" + name);
    const TestModel one = LoadTestModel(folder, compute::AutoKernelSet());
    const std::vector<runtime::Request> requests = Requests(one, 10, i);
    const Sides& sides = all_sides[i++];
    const TestModel context = LoadTestModel(folder, compute::AutoKernelSet(), sides.context.tp);
    const TestModel generation =
        LoadTestModel(folder, compute::AutoKernelSet(), sides.generation.tp);
    SeveralServers servers(context, OptionsOf(context, sides.context), generation,
                           OptionsOf(generation, sides.generation));
    const Answers answers = servers.Run(requests);
    const auto no_later = Clock::now() + std::chrono::seconds(20);
    const auto is_told = [](const runtime::EngineFigures& figures) {
      return figures.hand_over.num_prompts > 0 && figures.kv_usage == 0;
    };
    while (!is_told(servers.servers->figures(1)) && Clock::now() < no_later)
      std::this_thread::yield();
    EXPECT_GT(servers.servers->figures(0).hand_over.num_prompts, 0);
    EXPECT_GT(servers.servers->figures(1).hand_over.num_prompts, 0);
    servers.servers->Stop();
    EXPECT_TRUE(servers.prompts->Stop());
    servers.remote->Stop(true);
    for (const auto& process : servers.contexts) EXPECT_EQ(process->End(), kEndsWell);
    EXPECT_EQ(servers.other.End(), kEndsWell);
    runtime::Engine engine(*one.model, OptionsOf(one, 1));
    runtime::EngineLoop alone(engine, nullptr);
    const Answers expected = RunAll(alone, requests);
    for (size_t r = 0; r < requests.size(); ++r)
      EXPECT_TRUE(answers[r] == expected[r]) << folder << ", request " << r;
  }
}

class TinyFleet : public testing::Test {
 protected:
  TinyFleet()
      : model_(
            LoadTestModel(SourcePath("testdata/models/tiny-qwen3-moe"), compute::AutoKernelSet())),
        options_(OptionsOf(model_, 1)) {}

  TestModel model_;
  EngineOptions options_;
};

TEST_F(TinyFleet, AKilledGenerationCostsItsRequestsAndNoOthers) {
  SeveralServers servers(model_, options_, model_, options_);
  const std::vector<runtime::Request> requests(6, PromptOf(30, 200));
  Answers answers(6);
  servers.Submit(answers, requests);
  servers.StepWhile([&] { return servers.num_other_deltas < 9; });
  servers.other.Kill();
  servers.StepWhile([&] { return servers.num_left > 0; });
  EXPECT_FALSE(servers.servers->is_running(1));
  EXPECT_TRUE(servers.remote->is_gone());
  const Answers after = servers.Run(requests);
  servers.servers->Stop();
  EXPECT_NE(servers.servers->failure(1), nullptr);
  EXPECT_FALSE(servers.prompts->Stop(false));
  for (const auto& process : servers.contexts) EXPECT_EQ(process->End(), kEndsAlone);
  runtime::Engine engine(*model_.model, options_);
  runtime::EngineLoop alone(engine, nullptr);
  const Answers expected = RunAll(alone, requests);
  for (size_t i = 0; i < 6; ++i) {
    if (i % 2 == 1)
      EXPECT_EQ(answers[i].error, "the engine has stopped");
    else
      EXPECT_TRUE(answers[i] == expected[i]) << i;
    EXPECT_TRUE(after[i] == expected[i]) << i;
  }
}

TEST_F(TinyFleet, WhatAKilledGenerationHadIsBegunAnew) {
  SeveralServers servers(model_, options_, model_, options_, {.max_retries = 1});
  const std::vector<runtime::Request> requests(6, PromptOf(30, 200));
  Answers answers(6);
  servers.Submit(answers, requests);
  servers.StepWhile([&] { return servers.num_other_deltas < 9; });
  servers.other.Kill();
  servers.StepWhile([&] { return servers.num_left > 0; });
  runtime::Engine engine(*model_.model, options_);
  runtime::EngineLoop alone(engine, nullptr);
  EXPECT_EQ(answers.all(), RunAll(alone, requests).all());
  EXPECT_EQ(servers.servers->num_retries(), 3);
}

// The second of two prompts that begin otherwise goes to the server elsewhere.
TEST_F(TinyFleet, AGenerationElsewhereComputesTheRestOfAPromptThatItKnows) {
  options_.prefix_cache = true;
  SeveralServers servers(model_, options_, model_, options_,
                         {.routing = runtime::ServerRouting::kCacheAware, .max_own_prefill = 40});
  runtime::Engine engine(*model_.model, options_);
  runtime::EngineLoop alone(engine, nullptr);
  for (const int64_t turn : {0, 1}) {
    for (const int64_t length : {100, 101}) {
      runtime::Request request = PromptOf(length, 5);
      request.prompt.insert(request.prompt.end(), static_cast<size_t>(20 * turn), 7);
      request.sampling.num_logprobs = 2;
      const Answers answers = servers.Run({request});
      const Answers expected = RunAll(alone, {request});
      EXPECT_EQ(answers[0].tokens, expected[0].tokens);
      EXPECT_EQ(answers[0].logprobs, expected[0].logprobs);
    }
  }
  for (const size_t i : {0U, 1U}) EXPECT_EQ(servers.servers->figures(i).num_own_prompts, 1);
  servers.servers->Stop();
  EXPECT_TRUE(servers.prompts->Stop());
  servers.remote->Stop(true);
  EXPECT_EQ(servers.other.End(), kEndsWell);
}

// The server stands still while the front door's patience ends; what it lets go later is free.
TEST_F(TinyFleet, LeasesOfAGenerationThatStandsStillEndWhenItLetsGo) {
  const auto contexts = Contexts(1, model_, options_);
  GenerationProcess other(contexts, model_, options_);
  Halt(other.pid());
  runtime::ContextCaches caches;
  contexts[0]->Attach(caches);
  runtime::RemoteContexts prompts({.sockets = {contexts[0]->socket()},
                                   .caches = &caches,
                                   .vocab_size = model_.config.vocab_size,
                                   .capacity = runtime::ServerRouter::CapacityOf(options_)});
  runtime::RemoteEngine remote(other.TakeSocket(), "generation server");
  Clock::time_point now;
  runtime::EngineLoop loop(remote, nullptr, [&] { return now; });
  loop.UseContext(prompts, std::chrono::milliseconds(50));
  Answers answers(3);
  for (size_t i = 0; i < 3; ++i) loop.Submit(answers.JobOf(PromptOf(40, 20), i));
  const auto have_begun = [&] {
    return std::ranges::all_of(answers.all(), [](const Answer& a) { return a.tokens.size() == 1; });
  };
  while (!have_begun()) {
    if (loop.idle()) loop.Wait(std::chrono::milliseconds(10));
    loop.Step();
  }
  now += std::chrono::milliseconds(50);
  loop.Step();
  for (const Answer& answer : answers.all())
    EXPECT_EQ(answer.error, "the keys and values of the prompt were not fetched within 50 ms");
  EXPECT_TRUE(
      Becomes(prompts, 0, [](const runtime::ContextFigures& f) { return f.num_held == 3; }));
  ::kill(other.pid(), SIGCONT);
  EXPECT_TRUE(Becomes(prompts, 0, [](const runtime::ContextFigures& f) {
    return f.kv_usage == 0 && f.num_held == 0;
  }));
  const Answers after = RunAll(loop, {PromptOf(40, 20)});
  EXPECT_EQ(after[0].tokens.size(), 20U);
  EXPECT_TRUE(prompts.Stop());
  remote.Stop(true);
  EXPECT_EQ(contexts[0]->End(), kEndsWell);
  EXPECT_EQ(other.End(), kEndsWell);
}

}  // namespace
}  // namespace wideload
