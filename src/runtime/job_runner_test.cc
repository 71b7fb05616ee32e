#include "runtime/job_runner.h"

#include <gtest/gtest.h>

namespace wideload::runtime {
namespace {

TEST(EngineFigures, AddUpAndSharesAreMeans) {
  const EngineFigures engines[] = {{.num_waiting = 1,
                                    .num_running = 2,
                                    .num_iterations = 3,
                                    .num_preemptions = 4,
                                    .num_held = 5,
                                    .kv_usage = 0.5,
                                    .prefixes = {.num_queries = 6, .num_hits = 7},
                                    .mean_imbalance = 0.25,
                                    .hand_over = {.num_prompts = 8, .num_bytes = 9, .ns = 10},
                                    .num_own_prompts = 11},
                                   {.num_waiting = 100,
                                    .num_running = 100,
                                    .num_iterations = 100,
                                    .num_preemptions = 100,
                                    .num_held = 100,
                                    .kv_usage = 0,
                                    .prefixes = {.num_queries = 100, .num_hits = 100},
                                    .mean_imbalance = 0.75,
                                    .hand_over = {.num_prompts = 100, .num_bytes = 100, .ns = 100},
                                    .num_own_prompts = 100}};
  const EngineFigures sum = SumOf(engines);
  EXPECT_EQ(sum.num_waiting, 101);
  EXPECT_EQ(sum.num_running, 102);
  EXPECT_EQ(sum.num_iterations, 103);
  EXPECT_EQ(sum.num_preemptions, 104);
  EXPECT_EQ(sum.num_held, 105);
  EXPECT_EQ(sum.kv_usage, 0.25);
  EXPECT_EQ(sum.prefixes.num_queries, 106);
  EXPECT_EQ(sum.prefixes.num_hits, 107);
  EXPECT_EQ(sum.mean_imbalance, 0.5);
  EXPECT_EQ(sum.hand_over.num_prompts, 108);
  EXPECT_EQ(sum.hand_over.num_bytes, 109);
  EXPECT_EQ(sum.hand_over.ns, 110);
  EXPECT_EQ(sum.num_own_prompts, 111);
  EXPECT_EQ(SumOf({}).kv_usage, 0);
}

}  // namespace
}  // namespace wideload::runtime
