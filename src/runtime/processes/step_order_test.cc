#include "runtime/processes/step_order.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <random>

#include "base/error.h"
#include "kv/paged_cache.h"
#include "runtime/processes/testing.h"

namespace wideload::runtime {
namespace {

Request MakeRequest(uint64_t index, size_t prompt_length, int64_t max_tokens) {
  Request request;
  for (size_t i = 0; i < prompt_length; ++i)
    request.prompt.push_back(static_cast<int32_t>((index * 7 + i) % kSmallVocab));
  request.max_tokens = max_tokens;
  request.sampling = {.temperature = 0.5, .seed = index, .num_logprobs = 2};
  request.index = index;
  request.prompt_logits = index % 3 == 0;
  request.eos_ids = {-1, static_cast<int32_t>(1000 + index)};
  request.min_tokens = static_cast<int64_t>(index);
  for (size_t i = 0; i < index % 4; ++i)
    request.logit_bias.push_back({static_cast<int32_t>(i), -1});
  return request;
}

void ExpectSame(const PlanEntry& read, const PlanEntry& wanted) {
  EXPECT_EQ(read.start, wanted.start);
  EXPECT_EQ(read.count, wanted.count);
  EXPECT_EQ(read.sample, wanted.sample);
  if (read.sample) {
    EXPECT_EQ(read.sequence->allowed, wanted.sequence->allowed);
  }
  const Sequence& a = *read.sequence;
  const Sequence& b = *wanted.sequence;
  EXPECT_EQ(a.id, b.id);
  EXPECT_EQ(a.tokens, b.tokens);
  ASSERT_EQ(a.tables.size(), b.tables.size());
  for (size_t c = 0; c < a.tables.size(); ++c) EXPECT_EQ(a.tables[c].blocks, b.tables[c].blocks);
  EXPECT_EQ(a.prompt_length, b.prompt_length);
  EXPECT_EQ(a.request.max_tokens, b.request.max_tokens);
  EXPECT_EQ(a.request.eos_ids, b.request.eos_ids);
  EXPECT_EQ(a.request.min_tokens, b.request.min_tokens);
  EXPECT_TRUE(a.request.logit_bias == b.request.logit_bias);
  EXPECT_EQ(a.request.index, b.request.index);
  EXPECT_EQ(a.request.prompt_logits, b.request.prompt_logits);
  EXPECT_EQ(a.request.sampling.temperature, b.request.sampling.temperature);
  EXPECT_EQ(a.request.sampling.seed, b.request.sampling.seed);
  EXPECT_EQ(a.request.sampling.num_logprobs, b.request.sampling.num_logprobs);
}

// What a rank that only reads orders knows is what the scheduler knows, through admission, decode,
// preemption, cancellation and the end of requests, of which all begin as others do.
void ExpectEveryPlanIsCarried(std::span<const int64_t> windows) {
  const EngineOptions options = SmallOptions();
  Scheduler scheduler(SchedulerOptionsOf(options, windows));
  OrderWriter writers[2];
  OrderReader readers[2] = {{options, kSmallVocab, windows}, {options, kSmallVocab, windows}};
  std::mt19937 random(5);
  RequestId next = 0;
  std::vector<std::byte> bytes;
  int64_t iteration = 0;
  const auto retire = [&](RequestId id) {
    scheduler.Retire(id);
    for (OrderWriter& writer : writers) writer.Forget(id);
  };
  for (; iteration < 400 && (next < 60 || !scheduler.idle()); ++iteration) {
    if (next < 60 && random() % 2 == 0) {
      const auto index = static_cast<uint64_t>(next);
      Request request = MakeRequest(index, 1 + random() % 45, random() % 50);
      for (size_t i = 0; i < request.prompt.size(); ++i)
        request.prompt[i] = static_cast<int32_t>((index % 2 * 7 + i) % kSmallVocab);
      ASSERT_EQ(scheduler.Add(next++, std::move(request)), "");
    }
    if (random() % 16 == 0 && next > 0) retire(static_cast<RequestId>(random()) % next);
    const StepPlan& plan = scheduler.Plan();
    for (const auto& entries : plan.groups)
      for (const PlanEntry& entry : entries)
        if (entry.sequence->id % 2 == 0)
          entry.sequence->allowed.assign(static_cast<size_t>(grammar::TokenWords(kSmallVocab)),
                                         static_cast<uint64_t>(iteration));
    for (size_t r = 0; r < 2; ++r) {
      writers[r].WriteStep({.iteration = iteration, .count_routed = r == 1}, plan.groups[r], bytes);
      const StepOrder& order = readers[r].Read(bytes);
      EXPECT_EQ(order.kind, OrderKind::kStep);
      EXPECT_EQ(order.iteration, iteration);
      EXPECT_EQ(order.count_routed, r == 1);
      ASSERT_EQ(order.entries.size(), plan.groups[r].size());
      for (size_t i = 0; i < order.entries.size(); ++i)
        ExpectSame(order.entries[i], plan.groups[r][i]);
    }
    for (const auto& entries : plan.groups)
      for (const PlanEntry& entry : entries) {
        const int32_t token = entry.sample ? static_cast<int32_t>(random() % kSmallVocab) : -1;
        const RequestId id = entry.sequence->id;
        if (scheduler.Complete(entry, token) != FinishReason::kNone) retire(id);
      }
  }
  EXPECT_GT(scheduler.num_preemptions(), 3);
  EXPECT_EQ(scheduler.prefix_figures().num_hits > 0, windows.size() == 1);
  EXPECT_TRUE(scheduler.idle());
  for (size_t r = 0; r < 2; ++r) {
    writers[r].WriteStep({.iteration = iteration}, {}, bytes);
    readers[r].Read(bytes);
    EXPECT_EQ(readers[r].num_sequences(), 0);
  }
}

TEST(StepOrder, CarriesEveryPlanOfARunWithPreemption) { ExpectEveryPlanIsCarried(kSmallWindows); }

TEST(StepOrder, CarriesBlocksThatSeveralSequencesShare) { ExpectEveryPlanIsCarried(kNoWindows); }

TEST(StepOrder, TakesFewBytesForADecode) {
  const EngineOptions options = SmallOptions();
  Scheduler scheduler(SchedulerOptionsOf(options));
  ASSERT_EQ(scheduler.Add(0, MakeRequest(1, 30, 20)), "");
  OrderWriter writer;
  std::vector<std::byte> bytes;
  for (int i = 0; i < 3; ++i) {
    const StepPlan& plan = scheduler.Plan();
    writer.WriteStep({.iteration = i}, plan.groups[0], bytes);
    scheduler.Complete(plan.groups[0][0], 5);
  }
  EXPECT_LT(bytes.size(), 150);
}

class BadOrder : public testing::Test {
 protected:
  BadOrder() {
    EXPECT_EQ(scheduler_.Add(0, MakeRequest(1, 30, 20)), "");
    plan_ = &scheduler_.Plan();
  }
  // The order as written after `change`, read by a rank that knows nothing.
  void ExpectRefused(const std::function<void(Sequence&, PlanEntry&)>& change,
                     const std::string& reason) {
    PlanEntry entry = plan_->groups[0][0];
    Sequence sequence = *entry.sequence;
    entry.sequence = &sequence;
    change(sequence, entry);
    std::vector<std::byte> bytes;
    OrderWriter writer;
    writer.WriteStep({.iteration = 0}, {&entry, 1}, bytes);
    try {
      OrderReader(SmallOptions(), kSmallVocab, kSmallWindows).Read(bytes);
      FAIL() << "taken";
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr(reason));
    }
  }

  Scheduler scheduler_ = Scheduler(SchedulerOptionsOf(SmallOptions()));
  const StepPlan* plan_ = nullptr;
};

TEST_F(BadOrder, IsRefusedByName) {
  ExpectRefused([](Sequence& s, PlanEntry&) { s.tokens[3] = kSmallVocab; }, "has token 50");
  ExpectRefused([](Sequence& s, PlanEntry&) { s.tokens[3] = -1; }, "has token -1");
  ExpectRefused([](Sequence& s, PlanEntry&) { s.tables[0].blocks[0] = 8; }, "block 8");
  ExpectRefused([](Sequence& s, PlanEntry&) { s.tables[0].blocks.pop_back(); },
                "tables of 0 and 1 blocks");
  ExpectRefused(
      [](Sequence& s, PlanEntry&) {
        for (BlockTable& table : s.tables) table.blocks.pop_back();
      },
      "computes positions");
  ExpectRefused([](Sequence&, PlanEntry& e) { ++e.count; }, "computes positions");
  ExpectRefused([](Sequence&, PlanEntry& e) { e.start = -1; }, "computes positions");
  ExpectRefused([](Sequence& s, PlanEntry&) { s.request.max_tokens = 71; }, "begins sequence");
  ExpectRefused([](Sequence& s, PlanEntry&) { s.tokens.pop_back(); }, "29 of 30 tokens");
  ExpectRefused([](Sequence& s, PlanEntry&) { s.tokens.resize(51, 1); }, "which ends at 50");
  ExpectRefused(
      [](Sequence& s, PlanEntry& e) {
        s.tokens.resize(41, 1);
        for (BlockTable& table : s.tables) table.blocks.resize(2);
        e.count = 41;
      },
      "computes 41 tokens");
  ExpectRefused([](Sequence& s, PlanEntry&) { s.request.sampling.temperature = -1; },
                "temperature is -1");
  ExpectRefused([](Sequence& s, PlanEntry&) { s.request.sampling.num_logprobs = 51; },
                "logprobs is 51");
  ExpectRefused(
      [](Sequence& s, PlanEntry&) {
        s.request.logit_bias = {{.id = 1, .bias = std::numeric_limits<float>::infinity()}};
      },
      "biases token 1");
}

TEST_F(BadOrder, IsRefusedWhereverItIsCutOff) {
  std::vector<std::byte> bytes;
  OrderWriter writer;
  writer.WriteStep({.iteration = 0}, plan_->groups[0], bytes);
  for (size_t size = 0; size < bytes.size(); ++size)
    EXPECT_THROW(
        OrderReader(SmallOptions(), kSmallVocab, kSmallWindows).Read(std::span(bytes).first(size)),
        Error)
        << size;
  bytes.resize(bytes.size() + 8);
  EXPECT_THROW(OrderReader(SmallOptions(), kSmallVocab, kSmallWindows).Read(bytes), Error);
}

TEST_F(BadOrder, IsRefusedWhenItIsOfNoKind) {
  for (const int kind : {-1, 5}) {
    std::vector<std::byte> bytes;
    OrderWriter::Write(static_cast<OrderKind>(kind), bytes);
    EXPECT_THROW(OrderReader(SmallOptions(), kSmallVocab, kSmallWindows).Read(bytes), Error)
        << kind;
  }
}

TEST(StepOrder, CarriesAChangeOfPlacements) {
  rebalance::PlacementChange change{.generation = 7, .layers = {}};
  for (const int32_t layer : {0, 3})
    change.layers.push_back(
        {.moe_layer = layer,
         .placement = eplb::RandomPlacement(5, 8, 2, static_cast<uint64_t>(layer))});
  std::vector<std::byte> bytes;
  OrderWriter writer;
  OrderReader reader(SmallOptions(), kSmallVocab, kSmallWindows);
  writer.WriteStep({.iteration = 0, .change = &change}, {}, bytes);
  EXPECT_EQ(reader.Read(bytes).change, change);
  for (size_t size = 0; size < bytes.size(); ++size)
    EXPECT_THROW(
        OrderReader(SmallOptions(), kSmallVocab, kSmallWindows).Read(std::span(bytes).first(size)),
        Error)
        << size;
  writer.WriteStep({.iteration = 1}, {}, bytes);
  EXPECT_EQ(reader.Read(bytes).change, std::nullopt);
}

// Three blocks of the first class and the last two of the second, into blocks of this engine.
FetchOrder RightFetch() {
  return {.server = 1,
          .group = 2,
          .micro_batch = 1,
          .first_block = 1,
          .from = {{.blocks = {90, 91, 92}, .num_given_back = 0},
                   {.blocks = {-1, -1, 80}, .num_given_back = 2}},
          .to = {{.blocks = {0, 1, 2, 3}, .num_given_back = 0},
                 {.blocks = {-1, 4, 5, 6}, .num_given_back = 1}}};
}

StepOrder ReadFetch(const FetchOrder& fetch) {
  std::vector<std::byte> bytes;
  OrderWriter::WriteFetch(fetch, bytes);
  return OrderReader(SmallOptions(), kSmallVocab, kSmallWindows).Read(bytes);
}

TEST(StepOrder, CarriesWhatIsFetched) {
  const FetchOrder fetch = RightFetch();
  const StepOrder order = ReadFetch(fetch);
  EXPECT_EQ(order.kind, OrderKind::kFetch);
  EXPECT_EQ(order.fetch.server, 1);
  EXPECT_EQ(order.fetch.group, 2);
  EXPECT_EQ(order.fetch.micro_batch, 1);
  EXPECT_EQ(order.fetch.first_block, 1);
  EXPECT_EQ(order.fetch.from, fetch.from);
  EXPECT_EQ(order.fetch.to, fetch.to);
  std::vector<std::byte> bytes;
  OrderWriter::WriteFetch(fetch, bytes);
  for (size_t size = 0; size < bytes.size(); ++size)
    EXPECT_THROW(
        OrderReader(SmallOptions(), kSmallVocab, kSmallWindows).Read(std::span(bytes).first(size)),
        Error)
        << size;
}

TEST(StepOrder, FetchesIntoBlocksThatAreThereAlone) {
  const auto expect_refused = [](auto change) {
    FetchOrder fetch = RightFetch();
    change(fetch);
    EXPECT_THROW(ReadFetch(fetch), Error);
  };
  expect_refused([](FetchOrder& f) { f.to[0].blocks[2] = 8; });
  expect_refused([](FetchOrder& f) { f.to[0].blocks[1] = -1; });
  expect_refused([](FetchOrder& f) { f.to[1].blocks[3] = -1; });
  expect_refused([](FetchOrder& f) { f.micro_batch = 2; });
  expect_refused([](FetchOrder& f) { f.micro_batch = -1; });
  expect_refused([](FetchOrder& f) { f.to.pop_back(); });
  expect_refused([](FetchOrder& f) { f.from.pop_back(); });
  expect_refused([](FetchOrder& f) { f.from[0].num_given_back = 4; });
  expect_refused([](FetchOrder& f) { f.server = -1; });
  expect_refused([](FetchOrder& f) { f.group = -1; });
  expect_refused([](FetchOrder& f) { f.first_block = -1; });
}

TEST_F(BadOrder, MayNotHaveASequenceTwice) {
  PlanEntry first = plan_->groups[0][0];
  PlanEntry second = first;
  first.count = 1;
  first.sample = false;
  second.start = 1;
  second.count = 1;
  second.sample = false;
  const PlanEntry both[] = {first, second};
  std::vector<std::byte> bytes;
  OrderWriter writer;
  writer.WriteStep({.iteration = 0}, both, bytes);
  try {
    OrderReader(SmallOptions(), kSmallVocab, kSmallWindows).Read(bytes);
    FAIL() << "taken";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("twice"));
  }
}

TEST_F(BadOrder, MayNotContinueWhatIsNotThere) {
  std::vector<std::byte> bytes;
  OrderWriter writer;
  writer.WriteStep({.iteration = 0}, plan_->groups[0], bytes);
  writer.WriteStep({.iteration = 1}, plan_->groups[0], bytes);
  EXPECT_THROW(OrderReader(SmallOptions(), kSmallVocab, kSmallWindows).Read(bytes), Error);
}

}  // namespace
}  // namespace wideload::runtime
