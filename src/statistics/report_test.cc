#include "statistics/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>

#include "base/error.h"
#include "base/file.h"
#include "statistics/statistics_folder.h"

namespace wideload::statistics {
namespace {

using ::testing::HasSubstr;

std::string Report(const ExpertStatistics& statistics, const ReportOptions& options = {}) {
  return FormatLoadReport(MakeLoadReport(statistics, options));
}

std::string WithoutWindowLine(const std::string& text) { return text.substr(text.find("Load")); }

void ExpectReports(const std::string& folder, int32_t ep_size, int32_t num_slots,
                   const ReadStatisticsOptions& window) {
  const std::string expected = folder + "/expected_report";
  const ExpertStatistics statistics = ReadStatistics(folder, {});
  EXPECT_EQ(Report(statistics), ReadFile(expected + ".txt"));
  EXPECT_EQ(Report(statistics, {.per_expert = true}), ReadFile(expected + "_per_expert.txt"));
  EXPECT_EQ(Report(ReadStatistics(folder, window)),
            WithoutWindowLine(ReadFile(expected + "_window.txt")));
  const EplbConfig config =
      ReadEplbYaml(fmt::format("{}/expected_eplb_{}x{}.yaml", folder, ep_size, num_slots));
  EXPECT_EQ(Report(statistics, {.ep_size = ep_size, .projection = &config}),
            ReadFile(fmt::format("{}_projection_{}x{}.txt", expected, ep_size, num_slots)));
}

TEST(LoadReport, PrintsTheTextsOfTensorRtLlm) {
  ExpectReports(std::string(std::getenv("WIDELOAD_SOURCE_DIR")) + "/testdata/statistics/small", 4,
                40, {.iter_start = 101, .iter_stop = 105});
}

TEST(LoadReport, PrintsTheTextsOfTensorRtLlmForAnR1Shape) {
  const char* shared = std::getenv("WIDELOAD_SHARED");
  const std::string folder =
      (shared ? std::string(shared)
              : std::string(std::getenv("WIDELOAD_SOURCE_DIR")) + "/../shared") +
      "/data/trtllm-statistics/r1-shape";
  if (!IsDirectory(folder)) GTEST_SKIP() << folder << " is not there; set WIDELOAD_SHARED";
  ExpectReports(folder, 36, 288, {.iter_start = 101, .iter_stop = 102});
}

ExpertStatistics OneIteration(std::vector<int64_t> counts) {
  return {.num_experts = static_cast<int32_t>(counts.size()),
          .experts_per_token = 1,
          .ep_size = 2,
          .num_iterations = 1,
          .layers = {0},
          .counts = std::move(counts)};
}

TEST(LoadReport, GroupsExpertsByRank) {
  const LoadReport report = MakeLoadReport(OneIteration({1, 2, 3, 6}), {});
  EXPECT_EQ(report.rows[0].mean, 6);
  EXPECT_FLOAT_EQ(static_cast<float>(report.rows[0].std), std::sqrt(18.0F));
  EXPECT_EQ(report.rows[0].imbalance_ratio, 0.5);
  EXPECT_EQ(MakeLoadReport(OneIteration({1, 2, 3, 6}), {.ep_size = 4}).rows[0].mean, 3);
}

TEST(LoadReport, LeavesLayersAndIterationsWithoutLoadOut) {
  ExpertStatistics statistics{.num_experts = 2,
                              .experts_per_token = 1,
                              .ep_size = 2,
                              .num_iterations = 3,
                              .layers = {0, 1, 2},
                              .counts = {0, 0, 1, 3, 0, 2,    // iteration 0: layer 0 has none
                                         0, 0, 0, 0, 0, 0,    // nothing
                                         0, 0, 0, 0, 1, 1}};  // layers 0 and 1 have none
  const LoadReport report = MakeLoadReport(statistics, {});
  EXPECT_EQ(report.layers, (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(report.layers_without_load, (std::vector<int32_t>{0}));
  EXPECT_EQ(report.empty_iterations, 1);
  EXPECT_EQ(report.partly_empty, 1);
  EXPECT_EQ(FormatLoadReport(report),
            "Load statistics:\n"
            "         mean       std  imbalance-ratio\n"
            "1         2.0  1.414214              0.5\n"
            "2         1.0  0.707107              0.5\n"
            "average   1.5  1.060660              0.5\n");
  EXPECT_DOUBLE_EQ(report.rows[1].balancedness, 0.75);  // of 1/2 and 1
  EXPECT_EQ(report.ratios, (std::vector<std::vector<double>>{{0.5}, {1, 0}}));
  EXPECT_EQ(PercentileOfAll(report.ratios, 0.5), 0.5);
  EXPECT_EQ(PercentileOfAll(report.ratios, 0.99), 1);
}

TEST(LoadReport, ProjectsAFileWithoutLayersAsContiguous) {
  EplbConfig config{.num_slots = 6};  // rank 0: experts 0, 1, 2; rank 1: 2, 3, 0
  const LoadReport report =
      MakeLoadReport(OneIteration({2, 4, 6, 8}), {.ep_size = 2, .projection = &config});
  EXPECT_EQ(report.rows[0].mean, 10);
  EXPECT_FLOAT_EQ(static_cast<float>(report.rows[0].imbalance_ratio), 0.2F);
}

TEST(LoadReport, ProjectsTheOptimalSplitWhereAsked) {
  EplbConfig config{.num_slots = 4, .layers = {{0, {0, 1, 0, 2}}}};
  const ExpertStatistics counts = OneIteration({10, 0, 6});
  EXPECT_EQ(MakeLoadReport(counts, {.projection = &config}).rows[0].imbalance_ratio, 0.375);
  EXPECT_EQ(MakeLoadReport(counts, {.projection = &config, .optimal_split = true})
                .rows[0]
                .imbalance_ratio,
            0);
}

TEST(LoadReport, PrintsTinyAndHugeNumbersAsPandasDoes) {
  const LoadReport report{.layers = {0},
                          .rows = {{.mean = 12345678.25, .std = 1e-9, .imbalance_ratio = 0.25}},
                          .average = {.mean = 3, .std = 2, .imbalance_ratio = 0.125}};
  EXPECT_EQ(FormatLoadReport(report),
            "Load statistics:\n"
            "                mean           std  imbalance-ratio\n"
            "0        12345678.25  1.000000e-09            0.250\n"
            "average         3.00  2.000000e+00            0.125\n");
}

TEST(LoadReport, RefusesRanksThatDoNotDivideAndFilesOfAnotherModel) {
  EXPECT_THROW(Report(OneIteration({1, 2, 3})), Error);
  EplbConfig config{.num_slots = 4, .layers = {{0, {0, 1, 2, 2}}}};
  EXPECT_THROW(Report(OneIteration({1, 2, 3, 4}), {.projection = &config}), Error);
  config.layers = {{1, {0, 1, 2, 3}}};
  EXPECT_THROW(Report(OneIteration({1, 2, 3, 4}), {.projection = &config}), Error);
}

}  // namespace
}  // namespace wideload::statistics
