// Same bits from ranks that share the context of their requests, for every family, with every other
// way to divide a model, with blocks that are found again or taken away, and a context that is as
// many times longer as they are ranks.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "support/engine_processes.h"
#include "support/layout_cases.h"
#include "support/random_model.h"
#include "support/test_data.h"
#include "support/test_engine.h"

namespace wideload {
namespace {

using compute::KernelSet;
using testing_support::Difference;
using testing_support::Outcome;
using testing_support::TestModel;

// Sanitizers slow everything down by an order of magnitude: there a part must do.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr size_t kShare = 4;
#else
constexpr size_t kShare = 1;
#endif

// Prompts of 1 to 230 tokens, every third of which asks for its logits; some sample.
std::vector<runtime::Request> LongRequests(const TestModel& model, size_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto below = [&random](int64_t limit) {
    return static_cast<int64_t>(random() % static_cast<uint64_t>(limit));
  };
  const int64_t longest = std::min<int64_t>(230, model.config.max_position_embeddings - 8);
  std::vector<runtime::Request> requests(count);
  for (size_t i = 0; i < count; ++i) {
    runtime::Request& request = requests[i];
    const int64_t length = i == 0 ? longest : 1 + below(longest);
    for (int64_t t = 0; t < length; ++t)
      request.prompt.push_back(static_cast<int32_t>(below(model.config.vocab_size)));
    request.max_tokens = 1 + below(6);
    request.index = i;
    request.prompt_logits = i % 3 == 0;
    if (i % 2 == 1) request.sampling.temperature = 0.7;
  }
  return requests;
}

std::vector<Outcome> OfOneRank(const TestModel& model, KernelSet kernels,
                               const std::vector<runtime::Request>& requests) {
  return testing_support::RunRequests(
      *model.model, testing_support::TestOptions(model.config, kernels), requests);
}

runtime::EngineOptions OptionsOf(const TestModel& model, KernelSet kernels,
                                 const parallel::Layout& layout) {
  runtime::EngineOptions options = testing_support::TestOptions(model.config, kernels);
  options.layout = layout;
  options.num_micro_batches = layout.pp;
  options.max_num_tokens = 90;
  options.deadline = std::chrono::seconds(60);  // ranks are more than cores
  return options;
}

class SharedContext : public testing::TestWithParam<KernelSet> {};

// All models with the kernels of this machine, some with each of the others.
TEST_P(SharedContext, ChangesNoBitOfAnyFamily) {
  std::vector<std::string> folders = testing_support::TinyModels();
  for (const std::string& folder : testing_support::WriteRandomFamilies(21))
    folders.push_back(folder);
  const size_t step = kShare * (GetParam() == compute::AutoKernelSet() ? 1 : 7);
  for (size_t i = static_cast<size_t>(GetParam()) % step; i < folders.size(); i += step) {
    const TestModel model = testing_support::LoadTestModel(folders[i], GetParam());
    const std::vector<runtime::Request> requests = LongRequests(model, 4, i);
    const int32_t ranks = 2 << i % 3;
    runtime::EngineOptions options = OptionsOf(model, GetParam(), {.cp = ranks, .moe_ep = ranks});
    const auto experts = static_cast<int32_t>(model.config.num_experts);
    options.num_slots = ranks * std::min(experts, experts / ranks + 1);
    options.moe_max_num_tokens = i % 2 == 0 ? 0 : 20;
    EXPECT_EQ(Difference(testing_support::RunRequests(*model.model, options, requests),
                         OfOneRank(model, GetParam(), requests)),
              "0")
        << folders[i] << " on " << ranks;
  }
}

INSTANTIATE_TEST_SUITE_P(KernelSets, SharedContext,
                         testing::ValuesIn(compute::SupportedKernelSets().begin(),
                                           compute::SupportedKernelSets().end()),
                         [](const auto& set) { return std::string(KernelSetName(set.param)); });

class SharedContextLayouts : public testing::Test {
 protected:
  static constexpr const char* kModels[] = {"tiny-deepseek-v3", "tiny-gpt-oss"};
  static std::vector<std::string> Folders() {
    std::vector<std::string> folders = {testing_support::LayoutModels().front()};
    for (const char* name : kModels)
      folders.push_back(testing_support::SourcePath(std::string("testdata/models/") + name));
    return folders;
  }

  const KernelSet kernels_ = compute::AutoKernelSet();
};

TEST_F(SharedContextLayouts, WithSharedAttentionGroupsStagesAndExpertsInParts) {
  const parallel::Layout layouts[] = {{.tp = 2, .cp = 2, .moe_ep = 4},
                                      {.dp = 2, .cp = 2, .moe_tp = 2, .moe_ep = 2},
                                      {.cp = 2, .pp = 2, .moe_ep = 2},
                                      {.tp = 2, .cp = 2, .pp = 2, .moe_tp = 4, .moe_ep = 1}};
  for (const std::string& folder : Folders()) {
    const TestModel one = testing_support::LoadTestModel(folder, kernels_);
    const std::vector<runtime::Request> requests = LongRequests(one, 5, 2);
    const std::vector<Outcome> expected = OfOneRank(one, kernels_, requests);
    for (const parallel::Layout& layout : layouts) {
      const TestModel model =
          testing_support::LoadTestModel(folder, kernels_, layout.tp, layout.moe_tp);
      EXPECT_EQ(Difference(testing_support::RunRequests(
                               *model.model, OptionsOf(model, kernels_, layout), requests),
                           expected),
                "0")
          << folder << ", tp " << layout.tp << " dp " << layout.dp << " pp " << layout.pp;
    }
  }
}

TEST_F(SharedContextLayouts, WhileTheBalancerMovesExperts) {
  for (const std::string& folder : Folders()) {
    const TestModel model = testing_support::LoadTestModel(folder, kernels_);
    const std::vector<runtime::Request> requests = LongRequests(model, 8, 3);
    runtime::EngineOptions options = OptionsOf(model, kernels_, {.dp = 2, .cp = 2, .moe_ep = 4});
    options.num_slots = static_cast<int32_t>(model.config.num_experts) + 4;
    options.slot_storage = moe::SlotStorage::kCopy;
    options.verify_slots = true;
    options.moe_max_num_tokens = 24;
    options.max_num_tokens = 40;
    options.rebalance = {.mode = rebalance::Mode::kRandom, .seed = 5};
    runtime::Engine engine(*model.model, options);
    EXPECT_EQ(Difference(testing_support::RunRequests(engine, requests),
                         OfOneRank(model, kernels_, requests)),
              "0")
        << folder;
    EXPECT_GT(engine.balancer()->figures().num_layers, 0) << folder;
  }
}

TEST_F(SharedContextLayouts, OfProcesses) {
  for (const std::string& folder : Folders()) {
    const TestModel model = testing_support::LoadTestModel(folder, kernels_);
    const std::vector<runtime::Request> requests = LongRequests(model, 4, 4);
    const std::vector<Outcome> expected = OfOneRank(model, kernels_, requests);
    const runtime::EngineOptions options = OptionsOf(model, kernels_, {.cp = 2, .moe_ep = 2});
    const ProcessOutcome outcome = RunEngineProcesses(
        {.options = options,
         .model_of = [&](int) -> const model::Model& { return *model.model; },
         .lead =
             [&](runtime::Engine& engine) {
               EXPECT_EQ(Difference(testing_support::RunRequests(engine, requests), expected), "0");
             }});
    EXPECT_TRUE(outcome.ranks.ok()) << folder << ": " << outcome.ranks.error;
  }
}

// Twice the same requests, in a cache that some have to leave and come back to.
TEST_F(SharedContextLayouts, WithBlocksThatAreFoundAgainAndTakenAway) {
  const TestModel model = testing_support::LoadTestModel(
      testing_support::SourcePath("testdata/models/tiny-deepseek-v3"), kernels_);
  std::vector<runtime::Request> requests = LongRequests(model, 8, 6);
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].prompt = requests[0].prompt;
    requests[i].prompt.resize(i % 2 == 0 ? 150 : 60);
    requests[i].prompt.back() = static_cast<int32_t>(i);
    requests[i].max_tokens = 30;
    requests[i].prompt_logits = false;
  }
  const std::vector<Outcome> expected = OfOneRank(model, kernels_, requests);
  for (const bool is_found : {false, true}) {
    runtime::EngineOptions options = OptionsOf(model, kernels_, {.cp = 2, .moe_ep = 2});
    options.num_kv_blocks = 5;
    options.prefix_cache = is_found;
    runtime::Engine engine(*model.model, options);
    for (int turn = 0; turn < 2; ++turn)
      EXPECT_EQ(Difference(testing_support::RunRequests(engine, requests), expected), "0")
          << "prefix cache " << is_found << ", turn " << turn;
    EXPECT_GT(engine.scheduler().num_preemptions(), 0);
    EXPECT_EQ(engine.scheduler().prefix_figures().num_hits > 0, is_found);
  }
}

// With the same memory for keys and values on each rank.
TEST_F(SharedContextLayouts, HoldsAContextAsManyTimesLongerAsTheyAreRanks) {
  const TestModel model = testing_support::LoadTestModel(
      testing_support::SourcePath("testdata/models/tiny-deepseek-v3"), kernels_);
  constexpr int64_t kBlocks = 2;
  constexpr int64_t kOfOneRank = kBlocks * kv::kBlockTokens;
  runtime::Request request;
  for (int64_t t = 0; t < kOfOneRank * 7 / 2 - 3; ++t)
    request.prompt.push_back(static_cast<int32_t>(t * 7 % model.config.vocab_size));
  request.max_tokens = 3;
  const auto run = [&](const parallel::Layout& layout, int64_t num_kv_blocks) {
    runtime::EngineOptions options = OptionsOf(model, kernels_, layout);
    options.num_kv_blocks = num_kv_blocks;
    return testing_support::RunRequests(*model.model, options, {request});
  };
  const std::vector<Outcome> refused = run({}, kBlocks);
  EXPECT_EQ(refused[0].error,
            "the request needs KV for 224 tokens; the cache of a rank holds 64 (raise "
            "kv-cache-memory)");
  const std::vector<Outcome> held = run({.cp = 4, .moe_ep = 4}, kBlocks);
  EXPECT_EQ(held[0].error, "");
  EXPECT_EQ(Difference(held, run({}, 4 * kBlocks)), "0");
}

}  // namespace
}  // namespace wideload
