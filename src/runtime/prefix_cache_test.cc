// What the scheduler does with blocks that hold what a request begins with.
#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <random>

#include "runtime/scheduler.h"

namespace wideload::runtime {
namespace {

constexpr int64_t kCachedBlock = kv::kBlockTokens;

SchedulerOptions CachingOptions() {
  return {.num_groups = 1,
          .max_num_tokens = 64,
          .max_batch_size = 8,
          .num_kv_blocks = 16,
          .max_seq_len = 512,
          .prefix_cache = true};
}

// `first`: from the first token on.
Request CachedPrompt(int64_t length, int64_t max_tokens, int32_t first = 1) {
  Request request;
  request.prompt.resize(static_cast<size_t>(length));
  std::iota(request.prompt.begin(), request.prompt.end(), first);
  request.max_tokens = max_tokens;
  return request;
}

// Runs the request to its end; returns how many tokens were computed for it.
int64_t NumComputed(Scheduler& scheduler, RequestId id, Request request) {
  EXPECT_EQ(scheduler.Add(id, std::move(request)), "");
  int64_t num_tokens = 0;
  while (scheduler.Find(id) != nullptr) {
    const StepPlan plan = scheduler.Plan();
    for (const auto& entries : plan.groups)
      for (const PlanEntry& entry : entries) {
        const RequestId of = entry.sequence->id;
        if (of == id) num_tokens += entry.count;
        if (scheduler.Complete(entry, entry.sample ? 7 : -1) != FinishReason::kNone)
          scheduler.Retire(of);
      }
  }
  return num_tokens;
}

TEST(PrefixCache, WholeBlocksOfAnEndedRequestAreNotComputedAgain) {
  Scheduler scheduler(CachingOptions());
  EXPECT_EQ(NumComputed(scheduler, 0, CachedPrompt(100, 1)), 100);
  EXPECT_EQ(NumComputed(scheduler, 1, CachedPrompt(100, 1)), 4);
  EXPECT_EQ(NumComputed(scheduler, 2, CachedPrompt(3 * kCachedBlock, 1)), kCachedBlock)
      << "the last token is always computed";
  EXPECT_EQ(NumComputed(scheduler, 3, CachedPrompt(kCachedBlock, 1)), kCachedBlock);
  EXPECT_EQ(NumComputed(scheduler, 4, CachedPrompt(100, 1, 2)), 100);
  EXPECT_EQ(scheduler.prefix_figures().num_queries, 100 + 100 + 96 + 32 + 100);
  EXPECT_EQ(scheduler.prefix_figures().num_hits, 96 + 64);
  EXPECT_EQ(scheduler.kv_usage(), 0);
}

TEST(PrefixCache, RequestsThatComeTogetherComputeTheirBeginningOnce) {
  SchedulerOptions options = CachingOptions();
  options.max_num_tokens = 512;
  options.num_kv_blocks = 64;
  Scheduler scheduler(options);
  for (RequestId id = 0; id < 5; ++id) scheduler.Add(id, CachedPrompt(70 + id, 1));
  scheduler.Add(5, CachedPrompt(40, 1, 500));  // begins otherwise: it does not wait
  int64_t num_tokens = 0;
  int num_plans = 0;
  for (; !scheduler.idle(); ++num_plans) {
    const StepPlan plan = scheduler.Plan();
    EXPECT_EQ(plan.groups[0].size(), num_plans == 0 ? 2U : 4U);
    for (const PlanEntry& entry : plan.groups[0]) {
      num_tokens += entry.count;
      const RequestId id = entry.sequence->id;
      if (scheduler.Complete(entry, entry.sample ? 7 : -1) != FinishReason::kNone)
        scheduler.Retire(id);
    }
  }
  EXPECT_EQ(num_tokens, 64 + (6 + 7 + 8 + 9 + 10) + 40);
  EXPECT_EQ(num_plans, 2);
}

TEST(PrefixCache, GeneratedTokensAreFoundInTheNextTurn) {
  Scheduler scheduler(CachingOptions());
  EXPECT_EQ(NumComputed(scheduler, 0, CachedPrompt(kCachedBlock - 3, 40)), kCachedBlock - 3 + 39);
  Request turn = CachedPrompt(kCachedBlock - 3, 1);
  turn.prompt.insert(turn.prompt.end(), 40, 7);
  turn.prompt.insert(turn.prompt.end(), 5, 9);
  const auto length = static_cast<int64_t>(turn.prompt.size());
  EXPECT_EQ(NumComputed(scheduler, 1, std::move(turn)), length - 2 * kCachedBlock);
}

TEST(PrefixCache, PromptsWhoseLogitsAreAskedForAreComputed) {
  Scheduler scheduler(CachingOptions());
  NumComputed(scheduler, 0, CachedPrompt(100, 1));
  Request request = CachedPrompt(100, 1);
  request.prompt_logits = true;
  EXPECT_EQ(NumComputed(scheduler, 1, std::move(request)), 100);
  EXPECT_EQ(scheduler.prefix_figures().num_queries, 100);
}

TEST(PrefixCache, SaltsAndDroppedPrefixesAreNotFound) {
  Scheduler scheduler(CachingOptions());
  NumComputed(scheduler, 0, CachedPrompt(100, 1));
  Request salted = CachedPrompt(100, 1);
  salted.cache_salt = "a";
  EXPECT_EQ(NumComputed(scheduler, 1, salted), 100);
  EXPECT_EQ(NumComputed(scheduler, 2, salted), 4);
  scheduler.DropPrefixes();
  EXPECT_EQ(NumComputed(scheduler, 3, salted), 100);
}

TEST(PrefixCache, LayersWithAWindowHaveNone) {
  SchedulerOptions options = CachingOptions();
  options.kv_windows = {0, 40};
  Scheduler scheduler(options);
  EXPECT_FALSE(scheduler.has_prefix_cache());
  EXPECT_EQ(NumComputed(scheduler, 0, CachedPrompt(100, 1)), 100);
  EXPECT_EQ(NumComputed(scheduler, 1, CachedPrompt(100, 1)), 100);
}

TEST(PrefixCache, ARequestGoesWhereItsPrefixIsUnlessThatGroupIsMuchBusier) {
  SchedulerOptions options = CachingOptions();
  options.num_groups = 3;
  options.max_num_tokens = 1000;
  options.num_kv_blocks = 64;
  Scheduler scheduler(options);
  NumComputed(scheduler, 0, CachedPrompt(60, 1, 200));  // the first group
  scheduler.Add(1, CachedPrompt(20, 400, 300));
  scheduler.Plan();  // the first group is busy with one that was not computed yet
  EXPECT_EQ(NumComputed(scheduler, 2, CachedPrompt(4 * kCachedBlock + 1, 1)),
            4 * kCachedBlock + 1);  // the second
  EXPECT_EQ(scheduler.Find(1)->group, 0);
  scheduler.Add(3, CachedPrompt(4 * kCachedBlock + 9, 100));
  scheduler.Plan();
  EXPECT_EQ(scheduler.Find(3)->group, 1);
  EXPECT_EQ(scheduler.Find(3)->num_cached, 4 * kCachedBlock);
  // One more saves its prefix's tokens there, too; what is ahead of it grows until that is more.
  scheduler.Add(4, CachedPrompt(5 * kCachedBlock, 100, 900));
  scheduler.Plan();
  EXPECT_EQ(scheduler.Find(4)->group, 2);
  scheduler.Add(5, CachedPrompt(4 * kCachedBlock + 9, 100));
  scheduler.Plan();
  EXPECT_EQ(scheduler.Find(5)->group, 1);
}

TEST(PrefixCache, ABusyGroupsPrefixIsComputedElsewhere) {
  SchedulerOptions options = CachingOptions();
  options.num_groups = 2;
  options.num_kv_blocks = 64;
  Scheduler scheduler(options);
  NumComputed(scheduler, 0, CachedPrompt(kCachedBlock + 1, 1));  // the first group
  scheduler.Add(
      1, CachedPrompt(10 * kCachedBlock, 1, 1000));  // goes there, too, and has much to compute
  scheduler.Plan();
  ASSERT_EQ(scheduler.Find(1)->group, 0);
  scheduler.Add(2, CachedPrompt(kCachedBlock + 1, 1));
  scheduler.Plan();
  EXPECT_EQ(scheduler.Find(2)->group, 1);
}

// A run in which every position that an entry looks at holds the token that its sequence has there,
// whoever computed it: prompts of few texts, ends, cancellations, preemption, salts, seed by seed.
class CheckedRun {
 public:
  explicit CheckedRun(uint64_t seed) : random_(seed), scheduler_(OptionsOf(seed)) {}

  void Run() {
    for (int i = 0; i < 300 || !scheduler_.idle(); ++i) {
      if (i < 300 && random_() % 3 == 0) {
        EXPECT_EQ(scheduler_.Add(next_++, NextRequest()), "");
      }
      if (random_() % 24 == 0 && next_ > 0)
        scheduler_.Retire(static_cast<RequestId>(random_() % static_cast<uint64_t>(next_)));
      Step();
      if (testing::Test::HasFailure()) return;
    }
    EXPECT_EQ(scheduler_.kv_usage(), 0);
  }
  const Scheduler& scheduler() const { return scheduler_; }

 private:
  static SchedulerOptions OptionsOf(uint64_t seed) {
    SchedulerOptions options = CachingOptions();
    options.num_groups = 1 + static_cast<int32_t>(seed % 2);
    options.max_num_tokens = seed % 3 == 0 ? 17 : 100;
    options.max_batch_size = 4;
    options.num_kv_blocks = 9;
    options.max_seq_len = 280;
    return options;
  }

  Request NextRequest() {
    Request request;
    for (int64_t block = static_cast<int64_t>(random_() % 6); block >= 0; --block)
      request.prompt.insert(request.prompt.end(), static_cast<size_t>(kCachedBlock),
                            static_cast<int32_t>(random_() % 2));
    request.prompt.resize(request.prompt.size() - random_() % kCachedBlock);
    request.max_tokens = static_cast<int64_t>(random_() % 80);
    request.prompt_logits = random_() % 8 == 0;
    if (random_() % 8 == 0) request.cache_salt = "b";
    return request;
  }

  void Step() {
    const StepPlan plan = scheduler_.Plan();
    for (const auto& entries : plan.groups)
      for (const PlanEntry& entry : entries) Compute(entry);
    for (const auto& entries : plan.groups)
      for (const PlanEntry& entry : entries) Look(entry);
    for (const auto& entries : plan.groups)
      for (const PlanEntry& entry : entries) {
        const RequestId id = entry.sequence->id;
        const int32_t token = entry.sample ? static_cast<int32_t>(random_() % 2) : -1;
        if (scheduler_.Complete(entry, token) != FinishReason::kNone) scheduler_.Retire(id);
      }
  }

  // Group, block, and place in it.
  using Position = std::tuple<int32_t, int32_t, int64_t>;
  static Position At(const Sequence& sequence, int64_t position) {
    const auto block = static_cast<size_t>(position / kCachedBlock);
    return {sequence.group, sequence.tables[0].blocks.at(block), position % kCachedBlock};
  }
  std::string Held(const Sequence& sequence, int64_t position) const {
    const int32_t token = sequence.tokens[static_cast<size_t>(position)];
    return fmt::format("{} at {} of {}", token, position, sequence.request.cache_salt);
  }
  void Compute(const PlanEntry& entry) {
    for (int64_t i = entry.start; i < entry.start + entry.count; ++i)
      memory_[At(*entry.sequence, i)] = Held(*entry.sequence, i);
  }
  void Look(const PlanEntry& entry) const {
    for (int64_t i = 0; i < entry.start + entry.count; ++i)
      ASSERT_EQ(memory_.at(At(*entry.sequence, i)), Held(*entry.sequence, i))
          << "request " << entry.sequence->id;
  }

  std::mt19937_64 random_;
  Scheduler scheduler_;
  std::map<Position, std::string> memory_;
  RequestId next_ = 0;
};

TEST(PrefixCache, HoldsEveryTokenThatARequestLooksAt) {
  int64_t num_hits = 0, num_preemptions = 0;
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    CheckedRun run(seed);
    run.Run();
    ASSERT_FALSE(HasFailure()) << "seed " << seed;
    num_hits += run.scheduler().prefix_figures().num_hits;
    num_preemptions += run.scheduler().num_preemptions();
  }
  EXPECT_GT(num_hits, 10'000);
  EXPECT_GT(num_preemptions, 100);
}

}  // namespace
}  // namespace wideload::runtime
