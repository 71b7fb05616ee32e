#include "runtime/server_router.h"

#include <gtest/gtest.h>

#include <numeric>

namespace wideload::runtime {
namespace {

using Load = ServerRouter::Load;

std::vector<int32_t> TokensFrom(int32_t first, size_t length) {
  std::vector<int32_t> prompt(length);
  std::iota(prompt.begin(), prompt.end(), first);
  return prompt;
}

TEST(ServerRouter, TakesTurnsAmongThoseThatRun) {
  ServerRouter router(ServerRouting::kRoundRobin, {}, 3);
  std::vector<Load> loads(3);
  loads[0].num_open = 9;
  for (const size_t wanted : {0U, 1U, 2U, 0U}) EXPECT_EQ(router.Choose({}, "", loads), wanted);
  loads[1].is_running = false;
  for (const size_t wanted : {2U, 2U, 0U}) EXPECT_EQ(router.Choose({}, "", loads), wanted);
  loads[0].is_running = loads[2].is_running = false;
  EXPECT_EQ(router.Choose({}, "", loads), std::nullopt);
}

TEST(ServerRouter, TakesTheLeastLoaded) {
  ServerRouter router(ServerRouting::kLoadBalancing, {}, 3);
  EXPECT_EQ(router.Choose({}, "", std::vector<Load>{{true, 2}, {true, 1}, {true, 3}}), 1U);
  EXPECT_EQ(router.Choose({}, "", std::vector<Load>{{true, 2}, {false, 1}, {true, 3}}), 0U);
}

TEST(ServerRouter, GoesWhereThePromptsBeginningIs) {
  ServerRouter router(ServerRouting::kCacheAware, {.num_blocks = 100, .max_batch_size = 8}, 2);
  const std::vector<Load> idle(2);
  const auto first = TokensFrom(0, 128);
  const auto other = TokensFrom(1000, 128);
  EXPECT_EQ(router.Choose(first, "", idle), 0U);
  EXPECT_EQ(router.Choose(other, "", idle), 1U);
  EXPECT_EQ(router.Choose(other, "", idle), 1U);
  auto longer = first;
  longer.resize(200, 7);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(router.Choose(longer, "", idle), 0U);
  int64_t num_known = -1;
  EXPECT_EQ(router.Choose(longer, "", idle, &num_known), 0U);
  EXPECT_EQ(num_known, 192);
  longer[130] = 9;
  EXPECT_EQ(router.Choose(longer, "", idle, &num_known), 0U);
  EXPECT_EQ(num_known, 128);
  EXPECT_TRUE(router.Choose(TokensFrom(2000, 64), "", idle, &num_known));
  EXPECT_EQ(num_known, 0);
  // A server that is busy enough is not worth the blocks.
  EXPECT_EQ(router.Choose(first, "", std::vector<Load>{{true, 9}, {true, 0}}), 1U);
}

TEST(ServerRouter, SharesNothingBetweenSaltsAndForgetsTheOldest) {
  ServerRouter router(ServerRouting::kCacheAware, {.num_blocks = 4, .max_batch_size = 8}, 2);
  const std::vector<Load> idle(2);
  const std::vector<Load> first_is_busier = {{true, 1}, {true, 0}};
  const auto prompt = TokensFrom(0, 96);
  EXPECT_EQ(router.Choose(prompt, "a", idle), 0U);
  EXPECT_EQ(router.Choose(prompt, "b", first_is_busier), 1U);
  EXPECT_EQ(router.Choose(prompt, "a", first_is_busier), 0U);
  EXPECT_EQ(router.Choose(TokensFrom(500, 128), "a", std::vector<Load>{{true, 0}, {true, 9}}), 0U);
  EXPECT_EQ(router.Choose(prompt, "a", first_is_busier), 1U);
}

}  // namespace
}  // namespace wideload::runtime
