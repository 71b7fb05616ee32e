// Prompts computed by some engines and continued by another: the bits of one engine whatever the
// layouts, nothing left behind, and what a dead side costs.
#include <gtest/gtest.h>

#include <random>

#include "engine_pair.h"
#include "support/faulty_model.h"
#include "support/test_data.h"

namespace wideload {
namespace {

using namespace testing_support;  // NOLINT(google-build-using-namespace): all of this is with them
using runtime::EngineOptions;
using Pair = EnginePair;

// Grouped, latent and windowed attention, dense and with experts; prompts in pieces.
TEST(Disaggregation, GivesTheBitsOfOneEngineWhateverTheLayouts) {
  const Sides all_sides[] = {
      {{1, 1}, {1, 1}}, {{2, 1}, {1, 2}}, {{1, 2}, {2, 1}}, {{3, 1}, {2, 1}}, {{2, 1}, {2, 1}}};
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
      const TestModel context = LoadTestModel(folder, compute::AutoKernelSet(), sides.context.tp);
      const TestModel generation =
          LoadTestModel(folder, compute::AutoKernelSet(), sides.generation.tp);
      EngineOptions context_options = OptionsOf(context, sides.context);
      context_options.max_num_tokens = 24;
      Pair pair(*context.model, context_options, *generation.model,
                OptionsOf(generation, sides.generation));
      const Answers answers = RunAll(pair.loop, requests);
      for (size_t r = 0; r < requests.size(); ++r)
        EXPECT_EQ(answers[r], expected[r]) << folder << ", sides " << s << ", request " << r;
      EXPECT_GT(pair.generation.hand_over_figures().num_prompts, 0);
      pair.ExpectNothingLeft();
    }
    ++i;
  }
}

// Stages, equal ones or not, and ranks that share contexts, on one side or both. All pairs of
// layouts: ./dev soak disaggregation.
class StagesAndContexts : public testing::TestWithParam<size_t> {};

TEST_P(StagesAndContexts, ChangeNoBit) {
  const std::string names[] = {"qwen3-moe", "deepseek-v3", "gpt-oss"};
  const std::string folder = SourcePath("testdata/models/tiny-" + names[GetParam()]);
  const TestModel one = LoadTestModel(folder, compute::AutoKernelSet());
  const std::vector<runtime::Request> requests = LongRequests(one, 4, GetParam());
  EngineOptions of_one = OptionsOf(one, 1);
  of_one.prefix_cache = true;
  runtime::Engine engine(*one.model, of_one);
  runtime::EngineLoop alone(engine, nullptr);
  const Answers expected = RunAll(alone, requests);
  const Sides all_sides[][2] = {
      {{.context = {.pp = 2, .stage_layers = {1, 3}}, .generation = {.pp = 2}},
       {.context = {.cp = 2}, .generation = {.tp = 2}}},
      {{.context = {.tp = 2}, .generation = {.pp = 2}},
       {.context = {.dp = 2}, .generation = {.cp = 2}}},
      {{.context = {.tp = 2, .pp = 2}, .generation = {.dp = 2}},
       {.context = {.cp = 4}, .generation = {.pp = 2, .cp = 2}}}};
  for (const Sides& sides : all_sides[GetParam()]) {
    const TestModel context = LoadTestModel(folder, compute::AutoKernelSet(), sides.context.tp);
    const TestModel generation =
        LoadTestModel(folder, compute::AutoKernelSet(), sides.generation.tp);
    EngineOptions context_options = OptionsOf(context, sides.context);
    context_options.max_num_tokens = 60;
    context_options.prefix_cache = true;
    EngineOptions options = OptionsOf(generation, sides.generation);
    options.prefix_cache = true;
    Pair pair(*context.model, context_options, *generation.model, options);
    for (const bool is_again : {false, true}) {
      const Answers answers = RunAll(pair.loop, requests);
      for (size_t r = 0; r < requests.size(); ++r) {
        EXPECT_EQ(answers[r].tokens, expected[r].tokens) << sides.context.pp << ", request " << r;
        EXPECT_EQ(answers[r].logprobs, expected[r].logprobs) << is_again;
        EXPECT_EQ(answers[r].error, "");
      }
    }
    EXPECT_GT(pair.generation.hand_over_figures().num_prompts, 0);
    pair.ExpectNothingLeft();
  }
}

INSTANTIATE_TEST_SUITE_P(Models, StagesAndContexts, testing::Range(size_t{0}, size_t{3}));

class TinyPair : public testing::Test {
 protected:
  TinyPair()
      : model_(
            LoadTestModel(SourcePath("testdata/models/tiny-qwen3-moe"), compute::AutoKernelSet())),
        options_(OptionsOf(model_, 1)) {}

  TestModel model_;
  EngineOptions options_;
};

TEST_F(TinyPair, PrefixesAreFoundOnBothSides) {
  options_.prefix_cache = true;
  Pair pair(*model_.model, options_, *model_.model, options_);
  runtime::Request request = PromptOf(100, 12);
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
  for (int64_t i = 0; i < 12; ++i) requests.push_back(PromptOf(20 + i, 60));
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
  for (int64_t i = 0; i < 12; ++i) requests.push_back(PromptOf(33 + i, 20));
  EngineOptions small = options_;
  small.num_kv_blocks = 4;
  EngineOptions narrow = options_;
  narrow.max_batch_size = 1;
  Pair pair(*model_.model, small, *model_.model, narrow);
  const Answers answers = RunAll(pair.loop, requests);
  for (const Answer& answer : answers.all()) EXPECT_EQ(answer.tokens.size(), 20U) << answer.error;
  pair.ExpectNothingLeft();
}

// Cancels, misses deadlines and ends by the text at random, with room for few requests.
void CancelAtRandom(const TestModel& model, const Sides& sides) {
  std::mt19937_64 random(20);
  const auto up_to = [&](uint64_t most) { return random() % (most + 1); };
  EngineOptions options[] = {OptionsOf(model, sides.context), OptionsOf(model, sides.generation)};
  for (EngineOptions& of_side : options) {
    of_side.num_kv_blocks = 12;
    of_side.max_batch_size = 3;
  }
  Pair pair(*model.model, options[0], *model.model, options[1]);
  constexpr size_t kNumJobs = 80;
  Answers answers(kNumJobs);
  std::vector<runtime::JobId> ids;
  for (size_t i = 0; i < kNumJobs; ++i) {
    runtime::Request request =
        PromptOf(static_cast<int64_t>(up_to(90)), static_cast<int64_t>(up_to(30)));
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

TEST_F(TinyPair, CancellationsInEveryPhaseLeaveNothing) {
  CancelAtRandom(model_, {});
  CancelAtRandom(model_, {.context = {.pp = 2}, .generation = {.pp = 2}});
  CancelAtRandom(model_, {.context = {.cp = 2}, .generation = {.cp = 2}});
}

TEST_F(TinyPair, APromptThatIsNotFetchedInTimeEndsAndGivesItsBlocksBack) {
  options_.max_batch_size = 1;
  Pair pair(*model_.model, options_, *model_.model, options_, std::chrono::milliseconds(50));
  Answers answers(2);
  pair.loop.Submit(answers.JobOf(PromptOf(40, 100), 0));
  pair.loop.Submit(answers.JobOf(PromptOf(41, 100), 1));
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
  runtime::ContextEngines contexts(engines, runtime::ServerRouting::kRoundRobin);
  runtime::EngineLoop loop(generation, nullptr);
  loop.UseContext(contexts, kLongTimeout);
  Answers before(1);
  loop.Submit(before.JobOf(PromptOf(30, 80), 0));  // iteration 0 of the bad one
  while (before[0].tokens.empty()) loop.Step();
  const Answers answers = RunAll(loop, std::vector(6, PromptOf(31, 20)));
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
  const Answers after = RunAll(loop, std::vector(4, PromptOf(32, 5)));
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
  for (size_t i = 0; i < 5; ++i) pair.loop.Submit(answers.JobOf(PromptOf(30, 50), i));
  EXPECT_THROW(RunToEnd(pair.loop, answers), std::exception);
  for (const Answer& answer : answers.all()) EXPECT_EQ(answer.finish, FinishReason::kError);
  pair.StopContext();
}

TEST_F(TinyPair, KernelsThatCannotHandOverAreNamed) {
  EngineOptions other = options_;
  other.kernels = compute::KernelSet::kReference;
  EXPECT_NE(runtime::HandOverRefusal(options_, other).find("kernels are"), std::string::npos);
  EXPECT_EQ(runtime::HandOverRefusal(options_, options_), "");
}

}  // namespace
}  // namespace wideload
