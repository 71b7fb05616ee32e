#include "runtime/scheduler.h"

#include <gtest/gtest.h>

#include <limits>
#include <numeric>

#include "base/testing.h"
#include "kv/block_classes.h"

namespace wideload::runtime {
namespace {

constexpr int64_t kBlock = kv::kBlockTokens;

Request Prompt(int64_t length, int64_t max_tokens) {
  Request request;
  request.prompt.resize(static_cast<size_t>(length));
  std::iota(request.prompt.begin(), request.prompt.end(), 1);
  request.max_tokens = max_tokens;
  return request;
}

SchedulerOptions Options() {
  return {.num_groups = 1,
          .max_num_tokens = 64,
          .max_batch_size = 8,
          .num_kv_blocks = 16,
          .max_seq_len = 512};
}

// Carries out plans until everything has ended; every sampled token is `token`. Returns how many
// iterations it took.
int RunAll(Scheduler& scheduler, std::map<RequestId, std::vector<int64_t>>* starts = nullptr) {
  int iterations = 0;
  while (!scheduler.idle()) {
    const StepPlan plan = scheduler.Plan();
    EXPECT_FALSE(plan.empty()) << "nothing planned but not idle";
    if (plan.empty() || ++iterations > 100000) return -1;
    for (const auto& entries : plan.groups) {
      int64_t tokens = 0;
      for (const PlanEntry& entry : entries) {
        tokens += entry.count;
        if (starts) (*starts)[entry.sequence->id].push_back(entry.start);
        const RequestId id = entry.sequence->id;
        if (scheduler.Complete(entry, entry.sample ? 7 : -1) != FinishReason::kNone)
          scheduler.Retire(id);
      }
      EXPECT_LE(tokens, scheduler.options().max_num_tokens);
    }
  }
  return iterations;
}

TEST(Scheduler, RefusesCountsThatWouldOverflow) {
  Scheduler scheduler(Options());
  EXPECT_NE(scheduler.Add(0, Prompt(3, std::numeric_limits<int64_t>::max())), "");
  EXPECT_NE(scheduler.Add(0, Prompt(3, 510)), "");
  EXPECT_EQ(scheduler.Add(0, Prompt(3, 509)), "");
}

TEST(Scheduler, ComputesPromptsOfAllGroupsInTheSameIterationWhereTheyAreBalanced) {
  SchedulerOptions options = Options();
  options.num_groups = 2;
  options.prompt_balance = {.enable_balance = true, .timeout_iters = 3, .batching_wait_iters = 0};
  Scheduler scheduler(options);
  RequestId next = 0;
  // Tokens of each group in the next plan.
  const auto plan = [&] {
    std::vector<int64_t> tokens;
    const StepPlan& made = scheduler.Plan();
    for (const auto& entries : made.groups) {
      tokens.push_back(0);
      for (const PlanEntry& entry : entries) {
        tokens.back() += entry.count;
        scheduler.Complete(entry, entry.sample ? 7 : -1);
      }
    }
    return tokens;
  };
  using Tokens = std::vector<int64_t>;
  for (int i = 0; i < 2; ++i) EXPECT_EQ(scheduler.Add(next++, Prompt(10, 100)), "");
  EXPECT_EQ(plan(), (Tokens{10, 10}));
  EXPECT_EQ(scheduler.Add(next++, Prompt(10, 100)), "");
  for (int i = 0; i < 2; ++i) EXPECT_EQ(plan(), (Tokens{1, 1})) << "the other group has no prompt";
  EXPECT_EQ(scheduler.Add(next++, Prompt(10, 100)), "");
  EXPECT_EQ(plan(), (Tokens{11, 11}));
  EXPECT_EQ(scheduler.Add(next++, Prompt(10, 100)), "");
  for (int i = 0; i < 3; ++i) EXPECT_EQ(plan(), (Tokens{2, 2}));
  EXPECT_EQ(plan(), (Tokens{12, 2})) << "the time is over";
}

std::vector<RequestId> PlannedIds(const StepPlan& plan) {
  std::vector<RequestId> ids;
  for (const PlanEntry& entry : plan.groups[0]) ids.push_back(entry.sequence->id);
  return ids;
}

TEST(Scheduler, SpreadsRequestsOverMicroBatchesWhichHaveBlocksOfTheirOwn) {
  SchedulerOptions options = Options();
  options.num_micro_batches = 2;
  options.num_kv_blocks = 2;
  Scheduler scheduler(options);
  for (RequestId id = 0; id < 4; ++id) EXPECT_EQ(scheduler.Add(id, Prompt(10, 3)), "");
  EXPECT_EQ(PlannedIds(scheduler.Plan(0)), (std::vector<RequestId>{0, 2}));
  EXPECT_EQ(PlannedIds(scheduler.Plan(1)), (std::vector<RequestId>{1, 3}));
  EXPECT_EQ(scheduler.kv_usage(), 1);
}

TEST(Scheduler, LetsARequestWaitForABetterMicroBatchAsManyPlansAsThereAre) {
  SchedulerOptions options = Options();
  options.num_micro_batches = 2;
  Scheduler scheduler(options);
  for (RequestId id = 0; id < 2; ++id) EXPECT_EQ(scheduler.Add(id, Prompt(10, 9)), "");
  for (int plan = 0; plan < 3; ++plan) {
    const StepPlan first = scheduler.Plan(0);
    EXPECT_EQ(std::ssize(PlannedIds(first)), plan < 2 ? 1 : 2);
    for (const PlanEntry& entry : first.groups[0]) scheduler.Complete(entry, 7);
  }
}

TEST(Scheduler, CutsALongPromptIntoChunks) {
  Scheduler scheduler(Options());
  EXPECT_EQ(scheduler.Add(0, Prompt(150, 3)), "");
  std::map<RequestId, std::vector<int64_t>> starts;
  EXPECT_EQ(RunAll(scheduler, &starts), 5);
  EXPECT_EQ(starts[0], (std::vector<int64_t>{0, 64, 128, 150, 151}));
}

TEST(Scheduler, LetsDecodesGoBeforePromptChunks) {
  Scheduler scheduler(Options());
  scheduler.Add(0, Prompt(10, 5));
  const StepPlan first = scheduler.Plan();
  for (const PlanEntry& entry : first.groups[0]) scheduler.Complete(entry, 7);
  scheduler.Add(1, Prompt(200, 5));
  const StepPlan& plan = scheduler.Plan();
  ASSERT_EQ(plan.groups[0].size(), 2u);
  EXPECT_EQ(plan.groups[0][0].sequence->id, 0);
  EXPECT_EQ(plan.groups[0][1].count, 63);
}

TEST(Scheduler, PlacesRequestsOnTheRankWithLeastWork) {
  SchedulerOptions options = Options();
  options.num_groups = 3;
  Scheduler scheduler(options);
  scheduler.Add(0, Prompt(60, 1));
  scheduler.Add(1, Prompt(5, 1));
  scheduler.Add(2, Prompt(5, 1));
  scheduler.Add(3, Prompt(5, 1));
  const StepPlan& plan = scheduler.Plan();
  EXPECT_EQ(plan.groups[0].size(), 1u);
  EXPECT_EQ(plan.groups[1].size(), 2u);
  EXPECT_EQ(plan.groups[2].size(), 1u);
}

TEST(Scheduler, PreemptsTheYoungestWhenBlocksRunOutAndFinishesAll) {
  SchedulerOptions options = Options();
  options.num_kv_blocks = 4;
  Scheduler scheduler(options);
  for (RequestId id = 0; id < 5; ++id) EXPECT_EQ(scheduler.Add(id, Prompt(kBlock - 2, kBlock)), "");
  EXPECT_GT(RunAll(scheduler), 0);
  EXPECT_GT(scheduler.num_preemptions(), 0);
  EXPECT_EQ(scheduler.num_running(), 0);
}

TEST(Scheduler, RecomputesAPreemptedSequenceFromItsOwnTokens) {
  SchedulerOptions options = Options();
  options.num_kv_blocks = 2;
  Scheduler scheduler(options);
  scheduler.Add(0, Prompt(kBlock, 8));
  scheduler.Add(1, Prompt(kBlock - 1, 8));
  std::map<RequestId, std::vector<int64_t>> starts;
  EXPECT_GT(RunAll(scheduler, &starts), 0);
  EXPECT_EQ(std::count(starts[1].begin(), starts[1].end(), 0), 2)
      << "computed, preempted, computed again";
  EXPECT_EQ(std::count(starts[0].begin(), starts[0].end(), 0), 1)
      << "the oldest is never preempted";
}

// A class of blocks for layers that see 40 positions beside one for layers that see all.
TEST(Scheduler, GivesBlocksBehindAWindowBack) {
  SchedulerOptions options = Options();
  options.kv_windows = {0, 40};
  Scheduler scheduler(options);
  scheduler.Add(0, Prompt(60, 200));
  const Sequence* sequence = scheduler.Find(0);
  for (int64_t computed = 0; computed < 200;) {
    const StepPlan plan = scheduler.Plan();
    const PlanEntry& entry = plan.groups[0][0];
    // What this step computes and looks at has blocks, equally many in both classes.
    const auto needed = static_cast<size_t>(kv::BlocksFor(entry.start + entry.count));
    for (const BlockTable& table : sequence->tables) EXPECT_EQ(table.blocks.size(), needed);
    EXPECT_EQ(sequence->tables[0].num_given_back, 0);
    const int64_t first_seen = std::max<int64_t>(0, entry.start + 1 - 40);
    EXPECT_EQ(sequence->tables[1].num_given_back, first_seen / kBlock);
    computed = entry.start + entry.count;
    scheduler.Complete(entry, 7);
  }
  EXPECT_TRUE(scheduler.Retire(0));
}

// With few blocks the class of the window never stands in the way: it has enough for all.
TEST(Scheduler, FinishesAllThroughPreemptionWithWindows) {
  for (const std::vector<int64_t>& windows :
       {std::vector<int64_t>{0, 40}, std::vector<int64_t>{1, 0}, std::vector<int64_t>{33}}) {
    SchedulerOptions options = Options();
    options.num_kv_blocks = 9;
    options.kv_windows = windows;
    Scheduler scheduler(options);
    for (RequestId id = 0; id < 12; ++id)
      EXPECT_EQ(scheduler.Add(id, Prompt(10 + 17 * id, 60)), "") << id;
    EXPECT_GT(RunAll(scheduler), 0);
    EXPECT_EQ(scheduler.num_running(), 0);
    // Everything was given back once: a request that needs all of it runs.
    EXPECT_EQ(scheduler.Add(100, Prompt(9 * kBlock - 1, 1)), "");
    EXPECT_GT(RunAll(scheduler), 0);
  }
}

TEST(Scheduler, RefusesWhatCanNeverRun) {
  Scheduler scheduler(Options());
  EXPECT_NE(scheduler.Add(0, Prompt(0, 1)).find("empty"), std::string::npos);
  EXPECT_NE(scheduler.Add(1, Prompt(500, 20)).find("max_seq_len"), std::string::npos);
  SchedulerOptions small = Options();
  small.num_kv_blocks = 1;
  EXPECT_NE(Scheduler(small).Add(2, Prompt(kBlock, 1)).find("KV"), std::string::npos);
  EXPECT_TRUE(scheduler.idle());
}

TEST(Scheduler, StopsAtEosAndFreesBlocksOnRetire) {
  Scheduler scheduler(Options());
  Request request = Prompt(3, 10);
  request.eos_ids = {7};
  scheduler.Add(0, std::move(request));
  const StepPlan& plan = scheduler.Plan();
  EXPECT_EQ(scheduler.Complete(plan.groups[0][0], 7), FinishReason::kStop);
  EXPECT_TRUE(scheduler.Retire(0));
  EXPECT_FALSE(scheduler.Retire(0));
  EXPECT_TRUE(scheduler.idle());
}

TEST(Scheduler, HoldsAWaitingPromptOnce) {
  Scheduler scheduler(Options());
  scheduler.Add(3, Prompt(100, 400));
  const Sequence* const waiting = scheduler.Find(3);
  EXPECT_EQ(waiting->request.prompt.capacity(), 0U);
  EXPECT_EQ(waiting->tokens.size(), 100U);
  EXPECT_LT(waiting->tokens.capacity(), 500U);
  EXPECT_EQ(waiting->prompt_length, 100);
}

TEST(Scheduler, RetiresAnyOfVeryManyRequestsAtOnce) {
  const TimeLimit limit;
  constexpr RequestId kMany = 300'000;  // a search through them for each: minutes
  Scheduler scheduler(Options());
  for (RequestId id = 0; id < kMany; ++id) scheduler.Add(id, Prompt(1, 1));
  for (RequestId id = kMany; id-- > 0;) EXPECT_TRUE(scheduler.Retire(id * 7 % kMany));
  EXPECT_TRUE(scheduler.idle());
}

// Plans once and generates a token for each decode; returns the ids planned.
std::vector<RequestId> PlanOnce(Scheduler& scheduler) {
  std::vector<RequestId> ids;
  const StepPlan plan = scheduler.Plan();
  for (const PlanEntry& entry : plan.groups[0]) {
    ids.push_back(entry.sequence->id);
    if (scheduler.Complete(entry, entry.sample ? 7 : -1) != FinishReason::kNone)
      scheduler.Retire(ids.back());
  }
  return ids;
}

TEST(Scheduler, LetsSmallRequestsPassAGiantForATime) {
  Scheduler scheduler(Options());
  scheduler.Add(0, Prompt(12 * kBlock, kBlock));  // holds most blocks, then for some time
  while (scheduler.Find(0)->num_uncomputed() > 1) PlanOnce(scheduler);
  scheduler.Add(1, Prompt(8 * kBlock, 1));  // has to wait for it
  RequestId next = 2;
  int64_t num_passed = 0;
  while (scheduler.Find(0) != nullptr) {
    scheduler.Add(next++, Prompt(2, 1));
    for (const RequestId id : PlanOnce(scheduler)) num_passed += id >= 2 ? 1 : 0;
  }
  EXPECT_GE(num_passed, 10);
  EXPECT_LE(num_passed, Scheduler::kMaxPassed);
  const Sequence* const giant = scheduler.Find(1);
  PlanOnce(scheduler);
  EXPECT_GE(giant->group, 0) << "its turn has come";
}

TEST(Scheduler, MakesSmallRequestsWaitAtLastForAGiant) {
  SchedulerOptions options = Options();
  options.max_seq_len = 100'000;
  Scheduler scheduler(options);
  scheduler.Add(0, Prompt(12 * kBlock, 4 * kBlock - 1));
  while (scheduler.Find(0)->num_uncomputed() > 1) PlanOnce(scheduler);
  scheduler.Add(1, Prompt(5 * kBlock, 1));
  RequestId next = 2;
  int64_t num_passed = 0;
  for (int i = 0; i < 40 && scheduler.Find(0) != nullptr; ++i) {
    for (int j = 0; j < 4; ++j) scheduler.Add(next++, Prompt(1, 1));
    for (const RequestId id : PlanOnce(scheduler)) num_passed += id >= 2 ? 1 : 0;
  }
  EXPECT_EQ(num_passed, Scheduler::kMaxPassed);
}

TEST(Scheduler, ComputesPromptsThoughDecodesFillTheBudget) {
  SchedulerOptions options = Options();
  options.max_num_tokens = 4;
  Scheduler scheduler(options);
  for (RequestId id = 0; id < 4; ++id) scheduler.Add(id, Prompt(1, 200));
  PlanOnce(scheduler);
  scheduler.Add(4, Prompt(12, 1));
  int num_plans = 0;
  while (scheduler.Find(4) != nullptr && ++num_plans < 150) PlanOnce(scheduler);
  EXPECT_LE(num_plans, 3 * (Scheduler::kMaxStarved + 1)) << "three parts of four tokens";
  EXPECT_NE(scheduler.Find(0), nullptr);
}

Request OfPriority(int32_t priority, int64_t length = 2, int64_t max_tokens = 1) {
  Request request = Prompt(length, max_tokens);
  request.priority = priority;
  return request;
}

TEST(Scheduler, AdmitsLowerPrioritiesFirst) {
  SchedulerOptions options = Options();
  options.max_batch_size = 1;
  Scheduler scheduler(options);
  RequestId id = 0;
  for (const int32_t priority : {0, 2, -1, 0, -1}) scheduler.Add(id++, OfPriority(priority));
  std::vector<RequestId> order;
  while (!scheduler.idle()) order.push_back(PlanOnce(scheduler).at(0));
  EXPECT_EQ(order, (std::vector<RequestId>{2, 4, 0, 3, 1}));
}

TEST(Scheduler, AHighPriorityWaitsForABoundedTime) {
  SchedulerOptions options = Options();
  options.max_batch_size = 1;
  Scheduler scheduler(options);
  scheduler.Add(0, OfPriority(2));
  int64_t num_plans = 0;
  for (RequestId id = 1; scheduler.Find(0) != nullptr && num_plans < 10'000; ++num_plans) {
    scheduler.Add(id++, OfPriority(0));
    scheduler.Add(id++, OfPriority(0));  // more than can run
    PlanOnce(scheduler);
  }
  EXPECT_GT(num_plans, 2 * Scheduler::kPlansPerPriority);
  EXPECT_LT(num_plans, 5 * Scheduler::kPlansPerPriority)
      << "those that came before its turn, twice as many as ran";
}

TEST(Scheduler, PreemptsTheHighestPriority) {
  SchedulerOptions options = Options();
  options.num_kv_blocks = 4;
  Scheduler scheduler(options);
  scheduler.Add(0, OfPriority(1, kBlock, 2 * kBlock));
  PlanOnce(scheduler);
  scheduler.Add(1, OfPriority(0, kBlock, 2 * kBlock));
  while (scheduler.num_preemptions() == 0) PlanOnce(scheduler);
  EXPECT_EQ(scheduler.Find(0)->num_preemptions, 1) << "though it came first";
  EXPECT_GT(RunAll(scheduler), 0);
}

TEST(Scheduler, PrioritiesAtTheEndsOfTheirRangeAreTaken) {
  Scheduler scheduler(Options());
  scheduler.Add(0, OfPriority(std::numeric_limits<int32_t>::max()));
  scheduler.Add(1, OfPriority(std::numeric_limits<int32_t>::min()));
  EXPECT_EQ(PlanOnce(scheduler), (std::vector<RequestId>{1, 0}));
}

TEST(Scheduler, EndsAPromptWithoutGenerationAfterItsLastChunk) {
  Scheduler scheduler(Options());
  scheduler.Add(0, Prompt(65, 0));
  EXPECT_EQ(RunAll(scheduler), 2);
}

}  // namespace
}  // namespace wideload::runtime
