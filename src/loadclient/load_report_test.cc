#include "loadclient/load_report.h"

#include <gtest/gtest.h>

namespace wideload::loadclient {
namespace {

constexpr double kRounding = 1e-9;  // of sums of a few doubles

// Two that are complete, of 3 tokens and of 1, and one that failed.
std::vector<Outcome> ThreeOutcomes() {
  return {
      {.start_s = 0,
       .first_text_s = 0.1,
       .end_s = 0.5,
       .gaps_s = {0.1, 0.3},
       .prompt_tokens = 10,
       .output_tokens = 3},
      {.start_s = 0.2, .first_text_s = 1.2, .end_s = 1.2, .prompt_tokens = 5, .output_tokens = 1},
      {.start_s = 0.3, .end_s = 0.4, .error = "429 overloaded"}};
}

// As numpy's mean, median, std and percentile.
TEST(DistributionOf, AgreesWithNumpy) {
  const Distribution found = DistributionOf({4, 1, 3, 2, 10}, {0, 25, 90, 99, 100});
  EXPECT_NEAR(found.mean, 4, kRounding);
  EXPECT_NEAR(found.median, 3, kRounding);
  EXPECT_NEAR(found.std, 3.1622776601683795, kRounding);
  const double percentiles[] = {1, 2, 7.6, 9.76, 10};
  for (size_t i = 0; i < 5; ++i) EXPECT_NEAR(found.percentiles[i], percentiles[i], kRounding);
  EXPECT_EQ(DistributionOf({}, {50}).percentiles, std::vector<double>{0});
}

TEST(ComputeLoadFigures, CountsCompleteRequestsAndNamesFailedOnes) {
  const LoadFigures figures = ComputeLoadFigures(ThreeOutcomes(), 2, {});
  EXPECT_EQ(figures.num_completed, 2);
  EXPECT_EQ(figures.num_failed, 1);
  EXPECT_EQ(figures.errors.at("429 overloaded"), 1);
  EXPECT_EQ(figures.input_tokens, 15);
  EXPECT_EQ(figures.output_tokens, 4);
  EXPECT_NEAR(figures.PerSecond(figures.output_tokens), 2, kRounding);
  EXPECT_EQ(figures.peak_concurrent_requests, 3);
  EXPECT_EQ(figures.peak_output_tokens_per_s, 3);  // in the first second
  EXPECT_NEAR(figures.metrics.at("ttft").mean, 550, kRounding);
  EXPECT_NEAR(figures.metrics.at("tpot").mean, 200, kRounding);  // of the first alone
  EXPECT_NEAR(figures.metrics.at("itl").mean, 200, kRounding);
  EXPECT_NEAR(figures.metrics.at("e2el").mean, 750, kRounding);
  EXPECT_FALSE(figures.request_goodput_rps.has_value());
}

TEST(ComputeLoadFigures, CountsAsGoodWhatHoldsEveryLimit) {
  const auto goodput = [](const Goodput& limits) {
    return ComputeLoadFigures(ThreeOutcomes(), 1, {.goodput = limits}).request_goodput_rps.value();
  };
  EXPECT_EQ(goodput({.ttft_ms = 500}), 1);
  EXPECT_EQ(goodput({.ttft_ms = 2000}), 2);
  EXPECT_EQ(goodput({.ttft_ms = 2000, .tpot_ms = 150}), 1);  // one without a second token is good
  EXPECT_EQ(goodput({.e2el_ms = 400}), 0);
}

TEST(LoadReportJson, HasTheKeysOfVllm) {
  const ReportOptions options{.goodput = {.ttft_ms = 500}, .percents = {99, 99.9}};
  const Json json = LoadReportJson(ComputeLoadFigures(ThreeOutcomes(), 1, options), options);
  for (const char* key :
       {"duration", "completed", "failed", "total_input_tokens", "total_output_tokens",
        "request_throughput", "request_goodput", "output_throughput", "total_token_throughput",
        "mean_ttft_ms", "median_tpot_ms", "std_itl_ms", "p99_e2el_ms", "p99.9_ttft_ms"})
    EXPECT_TRUE(json.contains(key)) << key;
  const std::string text = LoadReportText(ComputeLoadFigures(ThreeOutcomes(), 1, options), options);
  EXPECT_NE(text.find("\nP99 TTFT (ms):                           "), std::string::npos);
  EXPECT_NE(text.find("\n  429 overloaded:                        1"), std::string::npos);
}

}  // namespace
}  // namespace wideload::loadclient
