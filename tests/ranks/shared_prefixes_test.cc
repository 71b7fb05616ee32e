// Requests that begin alike, with and without the prefix cache: the same tokens and the same log
// probabilities of all tokens by bytes, however prompts are cut, on threads and processes, through
// preemption, and while experts move.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <map>
#include <random>

#include "support/engine_processes.h"
#include "support/random_layout.h"
#include "support/test_data.h"
#include "support/test_engine.h"

namespace wideload {
namespace {

using testing_support::TestModel;

constexpr size_t kNumRequests = 16;

// What a request generated: its tokens, and for each of them the log probabilities of all, the
// likeliest first.
struct Generated {
  std::vector<int32_t> tokens;
  std::vector<runtime::TokenLogprob> logprobs;
};

bool AreSame(const Generated& a, const Generated& b) {
  return a.tokens == b.tokens && a.logprobs.size() == b.logprobs.size() && !a.tokens.empty() &&
         std::memcmp(a.logprobs.data(), b.logprobs.data(),
                     a.logprobs.size() * sizeof(runtime::TokenLogprob)) == 0;
}

// Prompts of up to four blocks of two texts, and some tokens more; some ask for their logits.
std::vector<runtime::Request> DrawPrompts(const TestModel& model, uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto below = [&random](int64_t limit) {
    return static_cast<int64_t>(random() % static_cast<uint64_t>(limit));
  };
  std::vector<std::vector<int32_t>> texts(2);
  for (std::vector<int32_t>& text : texts)
    for (int64_t i = 0; i < kv::kBlockTokens; ++i)
      text.push_back(static_cast<int32_t>(below(model.config.vocab_size)));
  std::vector<runtime::Request> requests(kNumRequests);
  for (size_t i = 0; i < kNumRequests; ++i) {
    runtime::Request& request = requests[i];
    for (int64_t block = below(5); block > 0; --block) {
      const std::vector<int32_t>& text = texts[static_cast<size_t>(below(2))];
      request.prompt.insert(request.prompt.end(), text.begin(), text.end());
    }
    for (int64_t rest = request.prompt.empty() ? 7 : below(3) * 5; rest > 0; --rest)
      request.prompt.push_back(static_cast<int32_t>(rest));
    request.max_tokens = 1 + below(40);
    request.index = i;
    request.prompt_logits = below(8) == 0;
    request.sampling.num_logprobs = static_cast<int32_t>(model.config.vocab_size);
    if (below(2) == 0) {
      request.sampling.temperature = 0.8;
      request.sampling.seed = 3;
    }
  }
  return requests;
}

std::vector<Generated> RunAll(runtime::Engine& engine,
                              const std::vector<runtime::Request>& requests) {
  std::vector<Generated> outcomes(requests.size());
  std::map<runtime::RequestId, size_t> index_of;
  for (size_t i = 0; i < requests.size(); ++i) index_of[engine.Submit(requests[i])] = i;
  while (!engine.idle())
    for (const runtime::Event& event : engine.Step()) {
      EXPECT_EQ(event.error, "");
      Generated& outcome = outcomes[index_of.at(event.id)];
      if (event.token >= 0) outcome.tokens.push_back(event.token);
      outcome.logprobs.insert(outcome.logprobs.end(), event.logprobs.begin(), event.logprobs.end());
    }
  return outcomes;
}

class SharedPrefixes : public testing::Test {
 protected:
  explicit SharedPrefixes(const std::string& name = "tiny-qwen3-moe", int32_t tensor_ranks = 1)
      : model_(testing_support::LoadTestModel(
            testing_support::SourcePath("testdata/models/" + name), kernels_, tensor_ranks)),
        requests_(DrawPrompts(model_, 1)) {
    runtime::EngineOptions options = testing_support::TestOptions(model_.config, kernels_);
    options.layout = {.tp = tensor_ranks, .dp = 1, .moe_ep = tensor_ranks};
    runtime::Engine engine(*model_.model, options);
    expected_ = RunAll(engine, requests_);
  }

  // The requests twice, one after the other.
  void ExpectSameBits(runtime::Engine& engine) const {
    for (int turn = 0; turn < 2; ++turn) {
      const std::vector<Generated> outcomes = RunAll(engine, requests_);
      for (size_t i = 0; i < outcomes.size(); ++i)
        EXPECT_TRUE(AreSame(outcomes[i], expected_[i])) << "turn " << turn << ", request " << i;
    }
  }

  // Odd seeds: a cache in which requests are preempted.
  runtime::EngineOptions DrawOptions(uint64_t seed, int32_t num_ranks) const {
    runtime::EngineOptions options =
        testing_support::DrawLayout(model_, kernels_, kNumRequests, seed, num_ranks).options;
    options.max_num_tokens = std::max<int64_t>(options.max_num_tokens, 17);
    options.max_batch_size = std::max<int64_t>(options.max_batch_size, 4);
    options.num_kv_blocks = seed % 2 == 0 ? 64 : 7;  // the longest request needs 6
    options.prefix_cache = true;
    return options;
  }

  void ExpectSameBitsOnRandomLayouts(std::initializer_list<int32_t> num_ranks) const {
    int64_t num_hits = 0, num_preemptions = 0;
    uint64_t seed = 0;
    for (const int32_t ranks : num_ranks) {
      SCOPED_TRACE(++seed);
      runtime::Engine engine(*model_.model, DrawOptions(seed, ranks));
      ExpectSameBits(engine);
      EXPECT_EQ(engine.scheduler().kv_usage(), 0);
      num_hits += engine.scheduler().prefix_figures().num_hits;
      num_preemptions += engine.scheduler().num_preemptions();
    }
    EXPECT_GT(num_hits, 100 * static_cast<int64_t>(num_ranks.size()));
    EXPECT_GT(num_preemptions, 0);
  }

  const compute::KernelSet kernels_ = compute::AutoKernelSet();
  TestModel model_;
  std::vector<runtime::Request> requests_;
  std::vector<Generated> expected_;
};

class SharedPrefixesOfLatents : public SharedPrefixes {
 protected:
  SharedPrefixesOfLatents() : SharedPrefixes("tiny-deepseek-v3") {}
};
class SharedPrefixesOfGroups : public SharedPrefixes {
 protected:
  SharedPrefixesOfGroups() : SharedPrefixes("tiny-qwen3-moe", 2) {}
};
class SharedPrefixesOfWindows : public SharedPrefixes {
 protected:
  SharedPrefixesOfWindows() : SharedPrefixes("tiny-gpt-oss") {}
};

TEST_F(SharedPrefixes, ChangeNoBitOnThreads) { ExpectSameBitsOnRandomLayouts({1, 2, 4, 1}); }

TEST_F(SharedPrefixesOfLatents, ChangeNoBitOnThreads) { ExpectSameBitsOnRandomLayouts({1, 2}); }

TEST_F(SharedPrefixesOfGroups, ChangeNoBitOnThreads) { ExpectSameBitsOnRandomLayouts({2, 4}); }

TEST_F(SharedPrefixesOfWindows, AreComputedByEachRequest) {
  runtime::Engine engine(*model_.model, DrawOptions(2, 1));
  ExpectSameBits(engine);
  EXPECT_EQ(engine.scheduler().prefix_figures().num_queries, 0);
}

TEST_F(SharedPrefixes, ChangeNoBitWhileExpertsMove) {
  runtime::EngineOptions options = DrawOptions(3, 2);
  options.num_slots = static_cast<int32_t>(model_.config.num_experts) + 4;
  options.placements.clear();
  options.rebalance = {.mode = rebalance::Mode::kRandom, .is_waiting = true};
  runtime::Engine engine(*model_.model, options);
  ExpectSameBits(engine);
  EXPECT_GT(engine.balancer()->figures().fetched_slots, 0);
  EXPECT_GT(engine.scheduler().prefix_figures().num_hits, 100);
}

TEST_F(SharedPrefixes, ChangeNoBitOnProcesses) {
  for (const uint64_t seed : {4U, 5U}) {
    const runtime::EngineOptions options = DrawOptions(seed, 2);
    const ProcessOutcome outcome =
        RunEngineProcesses({.options = options,
                            .model_of = [&](int) -> const model::Model& { return *model_.model; },
                            .lead =
                                [&](runtime::Engine& engine) {
                                  ExpectSameBits(engine);
                                  EXPECT_GT(engine.scheduler().prefix_figures().num_hits, 100);
                                }});
    EXPECT_EQ(outcome.ranks.error, "");
    EXPECT_TRUE(outcome.killed_ranks.empty());
  }
}

TEST_F(SharedPrefixes, EventsTellHowManyTokensWereThere) {
  runtime::EngineOptions options = testing_support::TestOptions(model_.config, kernels_);
  options.prefix_cache = true;
  runtime::Engine engine(*model_.model, options);
  runtime::Request request;
  request.prompt.assign(70, 5);
  request.max_tokens = 2;
  for (const int64_t expected : {0, 64}) {
    engine.Submit(request);
    while (!engine.idle())
      for (const runtime::Event& event : engine.Step())
        EXPECT_EQ(event.num_cached_tokens, expected);
  }
}

}  // namespace
}  // namespace wideload
