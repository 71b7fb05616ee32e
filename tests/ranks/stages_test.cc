// Same bits from ranks that are stages of a pipeline, with as many micro-batches in flight.
#include <gtest/gtest.h>

#include "support/layout_cases.h"
#include "support/test_engine.h"

namespace wideload {
namespace {

using testing_support::LayoutCase;

// Experts in place lie in equal stages, those that move in unequal ones.
constexpr LayoutCase kCases[] = {
    {.layout = {.pp = 2}},
    {.layout = {.pp = 2}, .are_experts_moving = true},
    {.layout = {.dp = 2, .pp = 2, .moe_ep = 2}, .are_experts_moving = true},
    {.layout = {.tp = 2, .pp = 2, .moe_tp = 2}},
    {.layout = {.pp = 4}},
    {.layout = {.tp = 2, .pp = 4, .moe_ep = 2}, .are_experts_moving = true},
    {.layout = {.pp = 2}, .are_processes = true},
    {.layout = {.dp = 2, .pp = 2, .moe_ep = 2}, .are_experts_moving = true, .are_processes = true},
};

class Stages : public testing::TestWithParam<size_t> {};

TEST_P(Stages, ChangeNoBit) {
  const std::string folder = testing_support::LayoutModels()[GetParam()];
  testing_support::LayoutRunner runner(folder);
  for (const LayoutCase& layout : kCases) {
    if (layout.layout.pp > runner.num_layers()) continue;
    EXPECT_EQ(runner.Run(layout), "0") << folder << ": " << layout.Describe();
  }
}

INSTANTIATE_TEST_SUITE_P(Models, Stages, testing::Range(size_t{0}, size_t{3}));

}  // namespace
}  // namespace wideload
