// Prompts computed by some engines and continued by another: the bits of one engine whatever the
// layouts, nothing left behind, and what a dead side costs.
#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "runtime/context_engines.h"
#include "support/faulty_model.h"
#include "support/random_layout.h"
#include "support/test_data.h"
#include "support/test_engine.h"

namespace wideload {
namespace {

using runtime::Delta;
using runtime::EngineOptions;
using runtime::FinishReason;
using testing_support::LoadTestModel;
using testing_support::SourcePath;
using testing_support::TestModel;
using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kLongTimeout{600'000};

// All that a client sees of a request.
struct Answer {
  std::vector<int32_t> tokens;
  std::vector<std::pair<int32_t, float>> logprobs;  // of the prompt's tokens, then of all deltas
  FinishReason finish = FinishReason::kNone;
  std::string error;
  int64_t num_cached = 0;
  bool operator==(const Answer&) const = default;
};

class Answers {
 public:
  explicit Answers(size_t count) : answers_(count) {}

  runtime::Job JobOf(const runtime::Request& request, size_t i, int32_t prompt_logprobs = -1) {
    return {.request = request,
            .text = {},
            .prompt_logprobs = prompt_logprobs,
            .deadline = {},
            .sink = [this, i](const Delta& delta) { Take(i, delta); }};
  }
  bool all_ended() const {
    return std::ranges::all_of(answers_,
                               [](const Answer& a) { return a.finish != FinishReason::kNone; });
  }
  const Answer& operator[](size_t i) const { return answers_[i]; }
  const std::vector<Answer>& all() const { return answers_; }

 private:
  void Take(size_t i, const Delta& delta) {
    Answer& answer = answers_[i];
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
  std::vector<Answer> answers_;
};

void RunToEnd(runtime::EngineLoop& loop, const Answers& answers) {
  while (!answers.all_ended()) {
    if (loop.idle()) loop.Wait(std::chrono::milliseconds(10));
    loop.Step();
  }
}

// Some with log probabilities of the prompt, of which every second is greedy.
Answers RunAll(runtime::EngineLoop& loop, const std::vector<runtime::Request>& requests) {
  Answers answers(requests.size());
  for (size_t i = 0; i < requests.size(); ++i)
    loop.Submit(answers.JobOf(requests[i], i, i % 3 == 2 ? 2 : -1));
  RunToEnd(loop, answers);
  return answers;
}

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

EngineOptions OptionsOf(const TestModel& model, int32_t groups) {
  EngineOptions options = testing_support::TestOptions(model.config, compute::AutoKernelSet());
  options.layout = {.tp = model.tensor_ranks, .dp = groups};
  options.layout.moe_ep = options.layout.stage();
  const auto experts = static_cast<int32_t>(model.config.num_experts);
  options.num_slots =
      options.layout.moe_ep * std::min(experts, experts / options.layout.moe_ep + 1);
  return options;
}

// One engine for prompts and one that goes on, on this thread.
struct Pair {
  Pair(const model::Model& context_model, const EngineOptions& context_options,
       const model::Model& generation_model, const EngineOptions& generation_options,
       std::chrono::milliseconds timeout = kLongTimeout)
      : context(context_model, context_options),
        generation(generation_model, generation_options),
        engines({&context}),
        contexts(engines, runtime::ContextRouting::kRoundRobin),
        loop(generation, nullptr, [this] { return now; }) {
    loop.UseContext(contexts, timeout);
  }
  // Once all requests have ended.
  void ExpectNothingLeft() {
    loop.Step();
    StopContext();
    EXPECT_EQ(context.scheduler().kv_usage(), 0);
    EXPECT_TRUE(context.idle());
    EXPECT_EQ(generation.scheduler().kv_usage(), 0);
    EXPECT_TRUE(generation.idle());
  }

  // Its thread ends leases.
  void StopContext() {
    const auto no_later = Clock::now() + std::chrono::seconds(20);
    while (contexts.loop(0).figures().kv_usage > 0 && Clock::now() < no_later)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    contexts.Stop();
    EXPECT_EQ(context.scheduler().num_held(), 0);
  }

  Clock::time_point now;
  runtime::Engine context;
  runtime::Engine generation;
  std::vector<runtime::Engine*> engines;
  runtime::ContextEngines contexts;
  runtime::EngineLoop loop;
};

struct Sides {
  int32_t context_tp, context_dp, generation_tp, generation_dp;
};

// Grouped, latent and windowed attention, dense and with experts; prompts in pieces.
TEST(Disaggregation, GivesTheBitsOfOneEngineWhateverTheLayouts) {
  const Sides all_sides[] = {{1, 1, 1, 1}, {2, 1, 1, 2}, {1, 2, 2, 1}, {3, 1, 2, 1}, {2, 1, 2, 1}};
  size_t i = 0;
  for (const std::string name : {"qwen3-moe", "deepseek-v3", "gpt-oss", "llama4-text", "llama"}) {
    const std::string folder = SourcePath("testdata/models/tiny-" + name);
    const TestModel one = LoadTestModel(folder, compute::AutoKernelSet());
    const std::vector<runtime::Request> requests = Requests(one, 8, i);
    runtime::Engine engine(*one.model, OptionsOf(one, 1));
    runtime::EngineLoop alone(engine, nullptr);
    const Answers expected = RunAll(alone, requests);
    for (size_t s = i % 2; s < std::size(all_sides); s += 2) {
      const Sides& sides = all_sides[s];
      const TestModel context = LoadTestModel(folder, compute::AutoKernelSet(), sides.context_tp);
      const TestModel generation =
          LoadTestModel(folder, compute::AutoKernelSet(), sides.generation_tp);
      EngineOptions context_options = OptionsOf(context, sides.context_dp);
      context_options.max_num_tokens = 24;
      Pair pair(*context.model, context_options, *generation.model,
                OptionsOf(generation, sides.generation_dp));
      const Answers answers = RunAll(pair.loop, requests);
      for (size_t r = 0; r < requests.size(); ++r)
        EXPECT_EQ(answers[r], expected[r]) << folder << ", sides " << s << ", request " << r;
      EXPECT_GT(pair.generation.hand_over_figures().num_prompts, 0);
      pair.ExpectNothingLeft();
    }
    ++i;
  }
}

class TinyPair : public testing::Test {
 protected:
  TinyPair()
      : model_(
            LoadTestModel(SourcePath("testdata/models/tiny-qwen3-moe"), compute::AutoKernelSet())),
        options_(OptionsOf(model_, 1)) {}
  runtime::Request Prompt(int64_t length, int64_t max_tokens) const {
    runtime::Request request;
    for (int64_t i = 0; i < length; ++i)
      request.prompt.push_back(static_cast<int32_t>((i * 37 + length) % 311));
    request.max_tokens = max_tokens;
    return request;
  }

  TestModel model_;
  EngineOptions options_;
};

TEST_F(TinyPair, PrefixesAreFoundOnBothSides) {
  options_.prefix_cache = true;
  Pair pair(*model_.model, options_, *model_.model, options_);
  runtime::Request request = Prompt(100, 12);
  request.sampling.num_logprobs = 0;
  const Answers first = RunAll(pair.loop, {request});
  EXPECT_EQ(first[0].num_cached, 0);
  const int64_t first_bytes = pair.generation.hand_over_figures().num_bytes;
  const Answers second = RunAll(pair.loop, {request});
  EXPECT_EQ(second[0].num_cached, 96);
  EXPECT_EQ(second[0].tokens, first[0].tokens);
  EXPECT_EQ(second[0].logprobs.back(), first[0].logprobs.back());
  // Of four blocks the last one.
  EXPECT_EQ(pair.generation.hand_over_figures().num_bytes, first_bytes + first_bytes / 4);
}

// With room for few requests some are preempted and computed again, on either side.
TEST_F(TinyPair, PreemptionChangesNoBit) {
  std::vector<runtime::Request> requests;
  for (int64_t i = 0; i < 12; ++i) requests.push_back(Prompt(20 + i, 60));
  runtime::Engine engine(*model_.model, options_);
  runtime::EngineLoop alone(engine, nullptr);
  const Answers expected = RunAll(alone, requests);
  EngineOptions small = options_;
  small.num_kv_blocks = 8;
  Pair pair(*model_.model, options_, *model_.model, small);
  const Answers answers = RunAll(pair.loop, requests);
  EXPECT_EQ(answers.all(), expected.all());
  EXPECT_GT(pair.generation.scheduler().num_preemptions(), 0);
  pair.ExpectNothingLeft();
}

// The blocks of prompts that wait for the other side let no more prompts in.
TEST_F(TinyPair, AFullContextWaitsForItsLeases) {
  std::vector<runtime::Request> requests;
  for (int64_t i = 0; i < 12; ++i) requests.push_back(Prompt(33 + i, 20));
  EngineOptions small = options_;
  small.num_kv_blocks = 4;
  EngineOptions narrow = options_;
  narrow.max_batch_size = 1;
  Pair pair(*model_.model, small, *model_.model, narrow);
  const Answers answers = RunAll(pair.loop, requests);
  for (const Answer& answer : answers.all()) EXPECT_EQ(answer.tokens.size(), 20U) << answer.error;
  pair.ExpectNothingLeft();
}

TEST_F(TinyPair, CancellationsInEveryPhaseLeaveNothing) {
  std::mt19937_64 random(20);
  const auto up_to = [&](uint64_t most) { return random() % (most + 1); };
  options_.num_kv_blocks = 12;
  options_.max_batch_size = 3;
  Pair pair(*model_.model, options_, *model_.model, options_);
  constexpr size_t kNumJobs = 80;
  Answers answers(kNumJobs);
  std::vector<runtime::JobId> ids;
  for (size_t i = 0; i < kNumJobs; ++i) {
    runtime::Request request =
        Prompt(static_cast<int64_t>(up_to(90)), static_cast<int64_t>(up_to(30)));
    request.eos_ids = {static_cast<int32_t>(up_to(311))};
    runtime::Job job = answers.JobOf(request, i);
    if (up_to(5) == 0) job.deadline = pair.now + std::chrono::milliseconds(up_to(20));
    ids.push_back(pair.loop.Submit(std::move(job)));
    if (up_to(2) == 0) pair.loop.Cancel(ids[up_to(i)]);
    for (uint64_t step = up_to(3); step > 0; --step) {
      pair.now += std::chrono::milliseconds(1);
      pair.loop.Step();
    }
  }
  RunToEnd(pair.loop, answers);
  pair.ExpectNothingLeft();
}

TEST_F(TinyPair, APromptThatIsNotFetchedInTimeEndsAndGivesItsBlocksBack) {
  options_.max_batch_size = 1;
  Pair pair(*model_.model, options_, *model_.model, options_, std::chrono::milliseconds(50));
  Answers answers(2);
  pair.loop.Submit(answers.JobOf(Prompt(40, 100), 0));
  pair.loop.Submit(answers.JobOf(Prompt(41, 100), 1));
  while (answers[0].tokens.size() < 2) pair.loop.Step();
  // The first one stays under way: this engine stands still until the other one has both.
  while (pair.contexts.figures()[0].num_prompts < 2) std::this_thread::yield();
  while (answers[1].tokens.empty()) pair.loop.Step();
  EXPECT_EQ(answers[1].finish, FinishReason::kNone);
  pair.now += std::chrono::milliseconds(50);
  pair.loop.Step();
  EXPECT_EQ(answers[1].error, "the keys and values of the prompt were not fetched within 50 ms");
  RunToEnd(pair.loop, answers);
  EXPECT_EQ(answers[0].tokens.size(), 100U);
  pair.ExpectNothingLeft();
}

// One of two engines that compute prompts fails in its second iteration.
TEST_F(TinyPair, ADeadContextCostsThePromptsOnIt) {
  testing_support::FaultyModel faulty(
      *model_.model,
      {.iteration = 1, .before = [](const model::Batch&) { throw std::runtime_error("broken"); }});
  runtime::Engine bad(faulty, options_);
  runtime::Engine good(*model_.model, options_);
  runtime::Engine generation(*model_.model, options_);
  runtime::Engine* const engines[] = {&bad, &good};
  runtime::ContextEngines contexts(engines, runtime::ContextRouting::kRoundRobin);
  runtime::EngineLoop loop(generation, nullptr);
  loop.UseContext(contexts, kLongTimeout);
  Answers before(1);
  loop.Submit(before.JobOf(Prompt(30, 80), 0));  // iteration 0 of the bad one
  while (before[0].tokens.empty()) loop.Step();
  const Answers answers = RunAll(loop, std::vector(6, Prompt(31, 20)));
  RunToEnd(loop, before);
  EXPECT_EQ(before[0].tokens.size(), 80U);  // it goes on here
  size_t num_errors = 0;
  for (const Answer& answer : answers.all()) {
    EXPECT_EQ(answer.tokens.size(), answer.error.empty() ? 20U : 0U);
    num_errors += answer.error.empty() ? 0 : 1;
  }
  EXPECT_GE(num_errors, 1U);
  EXPECT_LE(num_errors, 3U);
  EXPECT_FALSE(contexts.is_running(0));
  const Answers after = RunAll(loop, std::vector(4, Prompt(32, 5)));
  for (const Answer& answer : after.all()) EXPECT_EQ(answer.error, "");
  contexts.Stop();
  EXPECT_NE(contexts.failure(0), nullptr);
  EXPECT_EQ(contexts.failure(1), nullptr);
}

// What the other side has computed meanwhile is let go.
TEST_F(TinyPair, ADeadGenerationEndsItsRequestsAndLeases) {
  testing_support::FaultyModel faulty(
      *model_.model,
      {.iteration = 3, .before = [](const model::Batch&) { throw std::runtime_error("broken"); }});
  options_.max_batch_size = 2;
  Pair pair(*model_.model, options_, faulty, options_);
  Answers answers(5);
  for (size_t i = 0; i < 5; ++i) pair.loop.Submit(answers.JobOf(Prompt(30, 50), i));
  EXPECT_THROW(RunToEnd(pair.loop, answers), std::exception);
  for (const Answer& answer : answers.all()) EXPECT_EQ(answer.finish, FinishReason::kError);
  pair.StopContext();
}

TEST_F(TinyPair, LayoutsAndKernelsThatCannotHandOverAreNamed) {
  EngineOptions stages = options_;
  stages.layout.pp = 2;
  EXPECT_NE(runtime::HandOverRefusal(options_, stages).find("pipeline_parallel_size is 2"),
            std::string::npos);
  EngineOptions contexts = options_;
  contexts.layout.cp = 2;
  EXPECT_NE(runtime::HandOverRefusal(contexts, options_).find("context_parallel_size is 2"),
            std::string::npos);
  EngineOptions other = options_;
  other.kernels = compute::KernelSet::kReference;
  EXPECT_NE(runtime::HandOverRefusal(options_, other).find("kernels are"), std::string::npos);
  EXPECT_EQ(runtime::HandOverRefusal(options_, options_), "");
}

}  // namespace
}  // namespace wideload
