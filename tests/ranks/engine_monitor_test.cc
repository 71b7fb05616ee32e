// What a watcher is told of two ranks that run requests while the balancer moves experts.
#include "runtime/engine_monitor.h"

#include <gtest/gtest.h>

#include <numeric>

#include "runtime/engine_loop.h"
#include "support/test_data.h"
#include "support/test_engine.h"

namespace wideload {
namespace {

using testing_support::LoadTestModel;

template <class Values>
int64_t Sum(const Values& values) {
  return std::accumulate(values.begin(), values.end(), int64_t{0});
}

class EngineMonitorTest : public testing::Test {
 protected:
  EngineMonitorTest()
      : model_(LoadTestModel(testing_support::SourcePath("testdata/models/tiny-qwen3-moe"),
                             compute::AutoKernelSet())) {}

  runtime::EngineOptions Options(int32_t num_ranks) const {
    runtime::EngineOptions options =
        testing_support::TestOptions(model_.config, compute::AutoKernelSet());
    options.layout = parallel::DataParallel(num_ranks);
    options.max_batch_size = 4;
    options.rebalance.mode = rebalance::Mode::kRandom;
    options.rebalance.seed = 3;
    return options;
  }
  // Runs requests of different lengths to their end; returns the tokens that were computed.
  static int64_t Run(runtime::EngineLoop& loop) {
    int64_t num_tokens = 0;
    for (int32_t i = 0; i < 6; ++i) {
      runtime::Request request;
      for (int32_t t = 0; t < 5 + 3 * i; ++t) request.prompt.push_back((37 * t + i) % 311);
      request.max_tokens = 12;
      num_tokens += std::ssize(request.prompt) + request.max_tokens - 1;  // the last is not
      loop.Submit({.request = std::move(request), .sink = [](runtime::Delta) {}});
    }
    do loop.Step();
    while (!loop.idle());
    return num_tokens;
  }

  testing_support::TestModel model_;
};

TEST_F(EngineMonitorTest, ItsSumsAgreeWithEachOther) {
  runtime::Engine engine(*model_.model, Options(2));
  runtime::EngineLoop loop(engine, nullptr);
  loop.Watch();
  const int64_t num_tokens = Run(loop);
  const runtime::EngineCourse course = loop.monitor()->course();
  const runtime::EngineExperts experts = loop.monitor()->experts();
  EXPECT_EQ(course.total.prompt_tokens + course.total.generated_tokens, num_tokens);
  EXPECT_EQ(course.total.num_iterations, engine.last_iteration().iteration + 1);
  EXPECT_EQ(course.layers, model_.model->spec().moe.layers);
  const int64_t pairs = num_tokens * std::ssize(course.layers) * model_.model->spec().moe.top_k();
  EXPECT_EQ(Sum(experts.routed), pairs);
  EXPECT_EQ(Sum(course.computed_rows), pairs);
  EXPECT_EQ(course.exchange.num_returns, pairs);
  ASSERT_EQ(course.sent_rows.size(), 4);
  EXPECT_EQ(Sum(course.sent_rows), course.exchange.num_rows);
  for (const int64_t rows : course.sent_rows) EXPECT_GT(rows, 0);
  EXPECT_EQ(course.own_rows, course.sent_rows[0] + course.sent_rows[3]);
  EXPECT_EQ(course.host_rows, (std::vector{course.sent_rows[1] + course.sent_rows[2]}));
  const int64_t row_bytes = model_.model->spec().hidden *
                            DTypeBytes(compute::PrecisionOf(compute::AutoKernelSet()).activations);
  EXPECT_EQ(course.row_bytes, row_bytes);
  EXPECT_EQ(course.return_row_bytes, row_bytes);
  ASSERT_EQ(course.lives.size(), 2U);
  for (int32_t r = 0; r < 2; ++r) {
    const runtime::RankLife& life = course.lives[static_cast<size_t>(r)];
    EXPECT_EQ(life.place.dp, r);
    EXPECT_EQ(life.host, 0);
    EXPECT_EQ(life.ended, engine.EndOf(r));
    EXPECT_LE(life.ended, course.now);
  }
  EXPECT_EQ(Sum(course.fetched_slots), course.balancer.fetched_slots);
  for (size_t l = 0; l < course.layers.size(); ++l) {
    EXPECT_GE(course.imbalance_sums[l], 0);
    EXPECT_LE(course.balancedness_sums[l], static_cast<double>(course.total.num_iterations));
  }
}

TEST_F(EngineMonitorTest, RanksAreSeenAliveWhileNothingIsComputed) {
  runtime::Engine engine(*model_.model, Options(2));
  runtime::EngineLoop loop(engine, nullptr);
  loop.Watch();
  Run(loop);
  const runtime::EngineCourse before = loop.monitor()->course();
  loop.Step();
  const runtime::EngineCourse after = loop.monitor()->course();
  EXPECT_GT(after.seen, before.seen);
  EXPECT_EQ(after.now, before.now);
  EXPECT_EQ(after.lives[1].ended, before.lives[1].ended);
}

TEST_F(EngineMonitorTest, ItsSlotsAreThoseOfTheBalancer) {
  runtime::Engine engine(*model_.model, Options(2));
  runtime::EngineLoop loop(engine, nullptr);
  loop.Watch();
  const runtime::EngineExperts before = loop.monitor()->experts();
  Run(loop);
  const runtime::EngineExperts after = loop.monitor()->experts();
  ASSERT_GT(engine.balancer()->figures().num_changes, 0);
  EXPECT_EQ(after.generation, engine.balancer()->figures().num_changes);
  EXPECT_GT(loop.monitor()->course().changed_iteration, 0);
  bool has_moved = false;
  for (size_t l = 0; l < after.placements.size(); ++l) {
    EXPECT_EQ(after.placements[l].slot_expert, engine.balancer()->placements()[l].slot_expert);
    for (size_t s = 0; s < after.since[l].size(); ++s) {
      const bool is_other =
          after.placements[l].slot_expert[s] != before.placements[l].slot_expert[s];
      has_moved = has_moved || is_other;
      EXPECT_TRUE(!is_other || after.since[l][s] > 0) << l << " " << s;
    }
  }
  EXPECT_TRUE(has_moved);
}

TEST_F(EngineMonitorTest, OneRankHasNobodyToSendTo) {
  runtime::Engine engine(*model_.model, Options(1));
  runtime::EngineLoop loop(engine, nullptr);
  loop.Watch();
  const int64_t num_tokens = Run(loop);
  const runtime::EngineCourse course = loop.monitor()->course();
  EXPECT_EQ(course.balancer.num_changes, 0);
  EXPECT_EQ(Sum(course.imbalance_sums), 0);
  EXPECT_EQ(Sum(loop.monitor()->experts().routed),
            num_tokens * std::ssize(course.layers) * model_.model->spec().moe.top_k());
}

}  // namespace
}  // namespace wideload
