// Same bits from ranks that share the attention of their requests, for every family and weight
// format, and from every kind of layout that a few ranks allow.
#include <gtest/gtest.h>

#include <algorithm>

#include "base/file.h"
#include "support/layout_cases.h"
#include "support/random_layout.h"
#include "support/random_model.h"
#include "support/test_data.h"
#include "support/test_engine.h"

namespace wideload {
namespace {

using compute::KernelSet;
using testing_support::Outcome;
using testing_support::TestModel;

// Sanitizers slow everything down by an order of magnitude: there a part must do.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr size_t kShare = 4;
#else
constexpr size_t kShare = 1;
#endif

class SharedAttention : public testing::TestWithParam<KernelSet> {};

// All models with the kernels of this machine, some with each of the others.
TEST_P(SharedAttention, ChangesNoBitOfAnyFamily) {
  std::vector<std::string> folders = testing_support::TinyModels();
  for (const std::string& folder : testing_support::WriteRandomFamilies(20))
    folders.push_back(folder);
  const size_t step = kShare * (GetParam() == compute::AutoKernelSet() ? 1 : 5);
  for (size_t i = static_cast<size_t>(GetParam()) % step; i < folders.size(); i += step) {
    // With two KV heads three and four ranks have the same ones.
    const auto ranks = static_cast<int32_t>(2 + i % 3);
    const int32_t groups = i % 2 == 0 ? 1 : 2;
    const TestModel one = testing_support::LoadTestModel(folders[i], GetParam());
    const std::vector<runtime::Request> requests = testing_support::ShortRequests(one, 4, i);
    const std::vector<Outcome> expected = testing_support::RunRequests(
        *one.model, testing_support::TestOptions(one.config, GetParam()), requests);
    // Some with experts in parts: on all ranks, or on some of two groups.
    const bool is_whole = i % 3 == 0 || one.config.num_experts == 0;
    const int32_t parts = is_whole ? 1 : i % 4 == 1 ? groups : ranks;
    const TestModel model = testing_support::LoadTestModel(folders[i], GetParam(), ranks, parts);
    runtime::EngineOptions options = testing_support::TestOptions(model.config, GetParam());
    const int32_t expert_ranks = ranks * groups / parts;
    options.layout = {.tp = ranks, .dp = groups, .moe_tp = parts, .moe_ep = expert_ranks};
    const auto experts = static_cast<int32_t>(model.config.num_experts);
    options.num_slots = expert_ranks * std::min(experts, experts / expert_ranks + 1);
    options.max_num_tokens = 50;
    options.moe_max_num_tokens = i % 2 == 0 ? 0 : 20;
    EXPECT_EQ(testing_support::Difference(
                  testing_support::RunRequests(*model.model, options, requests), expected),
              "0")
        << folders[i] << ", " << groups << " groups of " << ranks << ", experts in " << parts;
  }
}

INSTANTIATE_TEST_SUITE_P(KernelSets, SharedAttention,
                         testing::ValuesIn(compute::SupportedKernelSets().begin(),
                                           compute::SupportedKernelSets().end()),
                         [](const auto& set) { return std::string(KernelSetName(set.param)); });

// ./dev soak layouts --all runs all of them.
TEST(LayoutCases, ASampleGivesTheBitsOfOneRank) {
  size_t index = 0;
  for (const std::string& folder : testing_support::LayoutModels())
    for (const testing_support::LayoutCase& layout : testing_support::LayoutCases(folder))
      if (++index % (83 * kShare) == 7) {
        testing_support::LayoutRunner runner(folder);
        EXPECT_EQ(runner.Run(layout), "0") << folder << ": " << layout.Describe();
      }
  EXPECT_GT(index, 600U);
}

TEST(LayoutCases, AreTheRowsOfTheirPageAndNoneDiffers) {
  const std::string page = ReadFile(testing_support::SourcePath("docs/layouts.md"));
  std::string expected = testing_support::LayoutPageBegin();
  for (const std::string& folder : testing_support::LayoutModels())
    for (const testing_support::LayoutCase& layout : testing_support::LayoutCases(folder))
      if (!layout.are_processes) expected += LayoutRowBegin(folder, layout) + "0 | 0 |\n";
  EXPECT_EQ(page, expected) << "./dev soak layouts --all --write makes the page";
}

}  // namespace
}  // namespace wideload
